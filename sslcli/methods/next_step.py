"""Autoregressive predictive coding (APC): absolute error of predicting the frame some steps ahead from those up to now.

Chung, Hsu, Tang & Glass, "An Unsupervised Autoregressive Model for Speech Representation Learning", Interspeech 2019.
https://arxiv.org/abs/1904.03240
B batch, N frames, P values of a frame, n the shift. The backbone must be causal, such as `gru`; the prediction is linear in its
features. Deviations from the authors' code: the values of padding and missing ones are no target; the mean is over values, theirs
is over sums of frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction


class NextStep(Method):
    requires = frozenset({"continuous", "order", "time"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, shift: int = 5):
        super().__init__(backbone)
        if not getattr(self.backbone, "causal", False):
            raise ValueError("predicting later frames requires a causal backbone, such as backbone=gru")
        if self.backbone.num_frames < 2:
            raise ValueError("predicting later frames requires at least 2 frames: a smaller backbone.stride")
        if shift < 1:
            raise ValueError(f"shift must be at least 1, got {shift}")
        self.shift = min(shift, self.backbone.num_frames - 1)
        self.likelihood = self.backbone.likelihood()
        self.head = self.likelihood.head(self.backbone.frame_dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        target = self.backbone.frame_values(x)[:, self.shift :]
        return {"loss": self.likelihood.loss(self.predict(x), target, absolute=True)}

    def predict(self, x: Tensor) -> Tensor:
        """(B, N - n, P): the frames from number n on, each from those up to n before it."""
        predicted: Tensor = self.head(self.backbone.frames(x))
        return predicted[:, : predicted.shape[1] - self.shift]

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The frames that are predicted from those n before them; the first n are visible. The source is what the network sees."""
        (x,) = batch.expect_views(1, "weak", "clean")
        seen = self.backbone.frame_values(x)
        source = self.backbone.values.complete(seen)
        mode = self.likelihood.mode(self.predict(x)).to(source.dtype)
        predicted = torch.cat([source[:, : self.shift], mode], dim=1)
        hidden = (torch.arange(source.shape[1], device=x.device) >= self.shift)[None, :, None].expand_as(source)
        to_view = self.backbone.from_frame_values
        return Reconstruction(to_view(seen), to_view(predicted), to_view(hidden), values=self.backbone.values)

    def details(self) -> dict[str, str]:
        n = self.backbone.num_frames
        return {"frames": f"{n} of {self.backbone.stride} steps, each predicted {self.shift} frames ahead"}
