"""SimMIM: L1 error of the pixels of masked patches, predicted by a linear layer.

Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022. https://arxiv.org/abs/2111.09886
B batch, N tokens, P raw values of a token. Masked patches enter the encoder as a learned mask token. Works on any tokens of the
backbone; categories are predicted with cross-entropy. Deviations from the authors' code: the unit of masking is one token (theirs
32 pixels, several tokens); padding and missing values are no target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.masking import random_keep, visible_count


class SimMIM(Method):
    requires = frozenset({"positions", "values"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, mask_ratio: float = 0.6):
        super().__init__(backbone)
        self.keep = visible_count(self.backbone.num_tokens, mask_ratio)
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.likelihood = self.backbone.likelihood()
        self.to_pixels = self.likelihood.head(self.backbone.dim)  # Sec. 3.3: "as light as a linear layer"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.predict(x, batch.uniform("mask", self.backbone.num_tokens))
        target = self.backbone.patchify(x)
        return {"loss": self.likelihood.loss(predicted, target, hidden[:, :, None], absolute=True)}  # Sec. 3.4

    def predict(self, x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions for every token, and the mask (B, N)."""
        _, hidden = random_keep(scores, self.keep)
        tokens = self.backbone.tokens(x, hidden=hidden, mask_token=self.mask_token)
        return self.to_pixels(tokens[:, self.backbone.prefix :]), hidden

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.predict(x, batch.uniform("mask", self.backbone.num_tokens))
        patches, to_view = self.backbone.patchify(x), self.backbone.unpatchify
        mode = self.likelihood.mode(predicted).view_as(patches)
        mask = hidden[:, :, None].expand_as(patches)
        return Reconstruction(x, to_view(mode), to_view(mask), values=self.backbone.values)

    def details(self) -> dict[str, str]:
        total = self.backbone.num_tokens
        return {"tokens": f"{total - self.keep} of {total} masked"}
