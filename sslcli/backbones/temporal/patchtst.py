"""A transformer on windows of each channel of a series: all channels share its weights, and none attends to another.

Nie et al., "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers", ICLR 2023. https://arxiv.org/abs/2211.14730
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError

MAX_TOKENS = 4096  # channels x windows; attention is masked, not skipped, between channels


class PatchTST(ViT):
    """Series (C, T) as C x n tokens, windows of `patch` steps of one channel, the first channel first (Sec. 3.1: channels are
    independent).

    Tokens attend to those of their own channel; a class token attends to all of them, and none attends to it. `forward` returns the
    mean of the tokens that are not all padding, (B, dim); `channel_features` the tokens of each channel side by side,
    (B, C, n * dim), which the paper's linear head reads (its flatten layer).

    The instance normalization of the paper is `dataset.scale=sample`. Deviations from the authors' code: the blocks of `ViT`
    (pre-norm LayerNorm, where theirs are post-norm BatchNorm), no dropout, windows do not overlap (as in their pretraining), and a
    class token.
    """

    accepts: ClassVar = {"continuous": (2,)}

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        heads: int = 16,
        patch: int | str = 12,
        positions: str = "learned",
        mlp_ratio: float = 4.0,
    ):
        super().__init__(input_shape, width, depth, heads, patch, "mean", positions, mlp_ratio)
        channels, steps = self.input_shape
        self.windows = self.num_tokens
        self.num_tokens, self.grid = channels * self.windows, (channels, self.windows)
        if self.num_tokens > MAX_TOKENS:
            larger = -(-steps * channels // MAX_TOKENS) + 1
            raise RequestError(
                f"{channels} channels of {self.windows} windows are {self.num_tokens:,} tokens, more than {MAX_TOKENS:,}",
                "backbone=patch_vit, whose windows hold all channels"
                + (f"; or backbone.patch={larger}" if larger <= steps else ""),
            )

    def _cut_shape(self) -> tuple[int, ...]:
        return 1, self.input_shape[1]

    def channel_features(self, x: Tensor) -> Tensor:
        """(B, C, n * dim): the tokens of each channel; those that are all padding are 0."""
        tokens, valid = self.tokens(x)[:, self.prefix :], self.present(x)
        return torch.where(valid[:, :, None], tokens, 0.0).view(x.shape[0], self.input_shape[0], -1)

    def _least(self) -> list[int]:
        return [self.patch]

    def _embed_patches(self, x: Tensor) -> Tensor:
        return F.linear(
            self.patchify(x).nan_to_num(), self.patch_embed.proj.weight.flatten(1), self.patch_embed.proj.bias
        )

    def _attention_mask(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """(B, 1 + n, 1 + n): tokens attend to those of their channel, the class token to all of them."""
        channels, valid = self.input_shape[0], self.present(x)
        of = (
            torch.arange(channels, device=x.device).repeat_interleave(valid.shape[1] // channels).expand(x.shape[0], -1)
        )
        if keep is not None:
            valid, of = valid.gather(1, keep), of.gather(1, keep)
        of = F.pad(of, (1, 0), value=-1)  # of the class token
        mask = (of[:, :, None] == of[:, None, :]) | (of == -1)[:, :, None]
        mask = mask & F.pad(valid, (1, 0), value=True)[:, None, :]
        alone = ~mask.any(dim=2, keepdim=True)  # tokens of a channel that is all padding attend to themselves
        return mask | (alone & torch.eye(mask.shape[1], dtype=torch.bool, device=x.device))

    def _positions(self, x: Tensor) -> Tensor:
        """(1, 1 + C n, dim), the same for all channels; linear interpolation for a shorter x."""
        table, n = self.pos_embed[:, 1:], self._grid(x)[1]
        if n != self.windows:
            table = F.interpolate(table.transpose(1, 2), size=n, mode="linear", align_corners=False).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], table.repeat(1, self.input_shape[0], 1)], dim=1)

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        return {"pos_embed": (1, (self.windows,))}

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[1], -(-x.shape[2] // self.patch)

    def patchify(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C n, patch): the windows of the first channel first, the last one padded with NaN."""
        n = self._grid(x)[1]
        padded = F.pad(x, (0, n * self.patch - x.shape[2]), value=float("nan"))
        return padded.reshape(x.shape[0], x.shape[1] * n, self.patch)

    def unpatchify(self, patches: Tensor) -> Tensor:
        return patches.reshape(len(patches), self.input_shape[0], -1)[:, :, : self.input_shape[1]]

    def present(self, x: Tensor) -> Tensor:
        return ~self.patchify(x).isnan().all(dim=2)
