"""A transformer on tubes of clips: patches of a few frames.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, arXiv:2103.15691, Sec. 3.2 (tubelet embedding) and 3.3 (model 1).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError
from sslcli.nn.transformer import sine_positions


class ClipViT(ViT):
    """Clips (C, T, H, W) as T / `tube` x H / p x W / p tokens, tubes of `tube` frames of p x p pixels, `p` as in `ViT`.

    Fixed positions are the sum of sines of the place and of the time; views of other sizes interpolate them linearly. Frames after
    the last full tube and pixels outside the last full patch are dropped.
    """

    accepts: ClassVar = {"continuous": (4,)}

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int | str = "auto",
        tube: int = 2,
        pool: str = "mean",
        positions: str = "fixed",
        mlp_ratio: float = 4.0,
    ):
        self.check_samples(tuple(input_shape), self.values)
        frames = input_shape[1]
        if isinstance(tube, bool) or not isinstance(tube, int) or tube < 1 or frames % tube:
            raise RequestError(f"backbone.tube={tube} does not divide a clip of {frames} frames", "backbone.tube=1")
        self.tube = tube
        super().__init__(input_shape, width, depth, heads, patch, pool, "learned", mlp_ratio)
        self.grid = (frames // tube, *self.grid)
        self.num_tokens = math.prod(self.grid)
        if positions not in ("fixed", "learned"):
            raise RequestError(
                f"backbone.positions: expected fixed or learned, got {positions!r}", "backbone.positions=fixed"
            )
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 1 + self.num_tokens, width), positions == "learned")
        if positions == "learned":
            torch.nn.init.normal_(self.pos_embed, std=0.02)
        else:
            self.pos_embed.data[0] = self.token_positions(width)

    def _cut_shape(self) -> tuple[int, ...]:
        channels, _, height, width = self.input_shape
        return channels * self.tube, height, width

    def _least(self) -> list[int]:
        return [self.tube, self.patch, self.patch]

    def _embed_patches(self, x: Tensor) -> Tensor:
        return self.patch_embed(self._tubes(x)).unflatten(0, (x.shape[0], -1)).flatten(1, 2)

    def _tubes(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B n, C tube, h, w): the frames of a tube as channels of one image, cropped to full patches."""
        n, height, width = (g * p for g, p in zip(self._grid(x), (self.tube, self.patch, self.patch), strict=True))
        x = x[:, :, :n, :height, :width].unflatten(2, (-1, self.tube))  # (B, C, n, tube, h, w)
        return x.transpose(1, 2).flatten(0, 1).flatten(1, 2).contiguous()

    def _positions(self, x: Tensor) -> Tensor:
        grid = self._grid(x)
        if grid == self.grid:
            return self.pos_embed
        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        resized = F.interpolate(table, size=grid, mode="trilinear", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        return {"pos_embed": (1, self.grid)}

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[2] // self.tube, x.shape[3] // self.patch, x.shape[4] // self.patch

    def patchify(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, N, tube * p * p * C): frame by frame, pixels in row-major order, channels last."""
        (t, h, w), p = self._grid(x), self.patch
        x = self._tubes(x).view(x.shape[0], t, x.shape[1], self.tube, h, p, w, p)
        return x.permute(0, 1, 4, 6, 3, 5, 7, 2).reshape(x.shape[0], t * h * w, -1)

    def unpatchify(self, patches: Tensor) -> Tensor:
        (t, h, w), p = self.grid, self.patch
        x = patches.view(len(patches), t, h, w, self.tube, p, p, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(len(patches), x.shape[1], t * self.tube, h * p, w * p)

    def token_positions(self, dim: int) -> Tensor:
        time, place = sine_positions(self.grid[:1], dim), sine_positions(self.grid[1:], dim)
        return torch.cat([torch.zeros(1, dim), (time[:, None] + place).flatten(0, 1)])

    def present(self, x: Tensor) -> None:
        return None
