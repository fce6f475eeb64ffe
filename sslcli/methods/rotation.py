"""Rotation: by how much was the picture turned, 0, 90, 180 or 270 degrees?

Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
https://arxiv.org/abs/1803.07728
B batch. All four turns of a sample are in the same batch, as in the paper (Sec. 3.1). What looks alike when turned
teaches nothing, and a flip is no turn: views that flip are fine. Deviations from the authors' code: the classifier is linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.losses import cross_entropy

TURNS = 4


class Rotation(Method):
    modalities = ("image",)
    min_batch = 1

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        _, high, wide = self.backbone.input_shape
        if high != wide:
            raise ValueError(f"a view of {high} x {wide} pixels has another shape when turned: square views are needed")
        self.classifier = nn.Linear(self.backbone.dim, TURNS)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        logits = self.classifier(self.backbone(turned(x)))  # (4 B, 4)
        truth = torch.arange(TURNS, device=x.device).repeat_interleave(len(x))
        accuracy = (logits.detach().argmax(dim=1) == truth).float().mean()
        return {"loss": cross_entropy(logits, truth), "accuracy": accuracy}  # eqs. (1)-(3)


def turned(x: Tensor) -> Tensor:
    """(B, C, S, S) -> (4 B, C, S, S): as it is, then turned counter-clockwise by 90, 180 and 270 degrees."""
    return torch.cat([x.rot90(k, dims=(2, 3)) for k in range(TURNS)])
