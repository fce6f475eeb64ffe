"""MAE: mean squared error of reconstructing masked patches from the visible ones with a light decoder.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. https://arxiv.org/abs/2111.06377
B batch, N tokens, n visible ones, P raw values of a token, D decoder width. Works on any tokens of the backbone: image patches,
windows of a series, columns of a table; categories are predicted with cross-entropy. Deviations from the authors' code: the mask
is a function of the sample (`batch.uniform`); padding and missing values are no target; the decoder's width follows the backbone
(`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.heads import Width
from sslcli.nn.masking import random_keep, visible_count
from sslcli.nn.patches import normalize_patches
from sslcli.nn.transformer import Block, init_linear


class MAE(Method):
    requires = frozenset({"positions", "values"})
    min_batch = 1

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        decoder_dim: Width = "auto",
        decoder_depth: int = 1,
        decoder_heads: int = 4,
    ):
        super().__init__(backbone)
        self.keep = visible_count(self.backbone.num_tokens, mask_ratio)
        self.likelihood = self.backbone.likelihood()
        self.norm_pix = norm_pix and self.likelihood.normalizes
        width = decoder_width(decoder_dim, self.backbone.dim, decoder_heads)
        self.embed = nn.Linear(self.backbone.dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions: Tensor
        self.register_buffer("positions", self.backbone.token_positions(width), persistent=False)  # (prefix + N, D)
        self.decoder = nn.ModuleList(Block(width, decoder_heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.to_pixels = self.likelihood.head(width, self.backbone.prefix)
        for part in (self.embed, self.decoder, self.to_pixels):
            part.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.predict(x, batch.uniform("mask", self.backbone.num_tokens))
        target, _, _ = self.target(x)
        loss = self.likelihood.loss(predicted, target, hidden[:, :, None])  # Sec. 3: "only on masked patches"
        return {"loss": loss}

    def predict(self, x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions for every token, and the mask (B, N): tokens with the larger scores (B, N) are masked."""
        keep, hidden = random_keep(scores, self.keep)
        visible = self.embed(self.backbone.tokens(x, keep))  # (B, prefix + n, D)
        prefix = self.backbone.prefix
        full = self.mask_token.to(visible.dtype).expand(len(x), hidden.shape[1], -1)
        full = full.scatter(1, keep[:, :, None].expand(-1, -1, visible.shape[2]), visible[:, prefix:])  # "unshuffle"
        h = torch.cat([visible[:, :prefix], full], dim=1) + self.positions
        for block in self.decoder:
            h = block(h)
        return self.to_pixels(self.norm(h)), hidden

    def target(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets (B, N, P), with the mean and standard deviation (B, N, 1) of their normalization (0 and 1 without norm_pix)."""
        patches = self.backbone.patchify(x)
        if not self.norm_pix:
            return patches, patches.new_zeros(1), patches.new_ones(1)
        return normalize_patches(patches)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.predict(x, batch.uniform("mask", self.backbone.num_tokens))
        target, mean, std = self.target(x)
        to_view = self.backbone.unpatchify
        return Reconstruction(
            x,
            to_view(self.likelihood.mode(predicted).view_as(target)),
            to_view(hidden[:, :, None].expand_as(target)),
            to_view(mean.expand_as(target)) if self.norm_pix else None,
            to_view(std.expand_as(target)) if self.norm_pix else None,
            self.backbone.values,
        )

    def details(self) -> dict[str, str]:
        total = self.backbone.num_tokens
        decoder = f"{len(self.decoder)} blocks of width {self.embed.out_features}"
        target = (
            "each token normalized by its own mean and standard deviation" if self.norm_pix else "the values themselves"
        )
        return {"tokens": f"{self.keep} of {total} visible", "decoder": decoder, "target": target}


def decoder_width(requested: Width, dim: int, heads: int) -> int:
    """`auto`: the paper's 512, at most the backbone's width; rounded up to a multiple of 4 x heads, for the positions."""
    width = min(512, dim) if requested == "auto" else requested
    if isinstance(width, str) or width < 1:
        raise ValueError(f"decoder_dim must be a positive integer or auto, got {requested!r}")
    step = 4 * heads
    return -(-width // step) * step
