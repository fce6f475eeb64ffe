"""Vision transformer for images and, with one axis less, for series. Parameters have timm's names."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import TokenBackbone
from sslcli.errors import RequestError
from sslcli.nn.transformer import Block, init_linear, received_attention, sine_positions

MAX_TOKENS = 1024  # limit of an automatic patch size, because attention is quadratic


class ViT(TokenBackbone):
    """Dosovitskiy et al., ICLR 2021; class token, learned linear patches, pre-norm blocks, GELU, LayerNorm eps 1e-6.

    Images (C, H, W) are split into square patches; series (C, T) into windows of `patch` steps, after padding with NaN to a
    multiple of the window. NaN is padding: it is replaced by 0, and a token that is all padding is excluded from attention and
    pooling. Smaller samples (local views) are supported: positional embeddings are interpolated; pixels outside the last full
    patch of an image are dropped.

    `patch: auto` is about an eighth of the side (32 -> 4, 8 -> 2, 224 -> 16), or about T / 32 steps.
    `pool`: `mean` of the patch tokens, or `cls`. Mean is the default: MAE does not train the class token directly.
    `positions`: `fixed` sine-cosine (MAE, MoCo v3), or `learned` from a normal of 0.02 (the paper). Both are `pos_embed`.

    Tokens are (B, 1 + n, dim) after the last norm. Deviations from timm: initialization as in MAE's code (Xavier-uniform), and mean
    pooling after `norm`, where timm pools first and then applies `fc_norm`.
    """

    accepts: ClassVar = {"continuous": (2, 3)}
    prefix = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        patch: int | str = "auto",
        pool: str = "mean",
        positions: str = "fixed",
        mlp_ratio: float = 4.0,
    ):
        super().__init__(input_shape)
        channels, *size = self._cut_shape()
        if width % heads or width % 4:
            raise RequestError(
                f"backbone.width: expected a multiple of 4 and of backbone.heads={heads}, got {width}",
                f"backbone.width={-(-width // math.lcm(4, heads)) * math.lcm(4, heads)}",
            )
        if int(width * mlp_ratio) < 1:
            raise RequestError(f"backbone.mlp_ratio={mlp_ratio} results in no hidden unit", "backbone.mlp_ratio=4")
        if pool not in ("mean", "cls"):
            raise RequestError(f"backbone.pool: expected mean or cls, got {pool!r}", "backbone.pool=mean")
        if positions not in ("fixed", "learned"):
            raise RequestError(
                f"backbone.positions: expected fixed or learned, got {positions!r}", "backbone.positions=fixed"
            )
        self.dim, self.pool = width, pool
        self.patch = patch_size(size, patch)
        self.grid = tuple(-(-s // self.patch) for s in size)
        self.num_tokens = math.prod(self.grid)
        self.patch_dim = channels * self.patch ** len(size)

        self.patch_embed = PatchEmbed(channels, width, self.patch, len(size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.num_tokens, width), requires_grad=positions == "learned")
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

        self.apply(init_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(width, -1))  # as a linear layer
        nn.init.normal_(self.cls_token, std=0.02)
        if positions == "learned":
            nn.init.normal_(self.pos_embed, std=0.02)
        else:
            self.pos_embed.data[0] = self.token_positions(width)

    def _cut_shape(self) -> tuple[int, ...]:
        """The channels and the size of what patches are cut from."""
        return self.input_shape

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        if self.pool == "cls":
            return tokens[:, 0]
        valid = self.present(x)
        if valid is None:
            return tokens[:, 1:].mean(dim=1)
        weight = valid.to(tokens.dtype)[:, :, None]
        return (tokens[:, 1:] * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        h, mask = self._embed(x, keep, hidden, mask_token, attend)
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)

    def depths(self, x: Tensor) -> list[Tensor]:
        h, mask = self._embed(x)
        out = []
        for block in self.blocks:
            h = block(h, mask)
            out.append(h)
        return out

    def _embed(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Input of the first block (B, 1 + n, dim), and its attention mask: (B, 1 + n), or (B, 1 + n, 1 + n)."""
        channels, *limits = self.input_shape
        fits = x.ndim == len(self.input_shape) + 1 and x.shape[1] == channels
        if not fits or any(not a <= s <= b for a, s, b in zip(self._least(), x.shape[2:], limits, strict=True)):
            raise RequestError(
                f"{type(self).__name__}: expected samples of shape {self.input_shape} or smaller, got {tuple(x.shape[1:])}"
            )
        positions = self._positions(x)
        h = self._embed_patches(x)  # (B, N, dim)
        if hidden is not None and mask_token is not None:
            h = torch.where(hidden[:, :, None], mask_token.to(h.dtype), h)
        h = h + positions[:, 1:]
        if keep is not None:
            h = h.gather(1, keep[:, :, None].expand(-1, -1, self.dim))
        cls = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        mask = self._attention_mask(x, keep)
        if attend is not None:
            attend = attend.expand(x.shape[0], -1, -1)
            mask = attend if mask is None else attend & (mask[:, None, :] if mask.ndim == 2 else mask)
        return torch.cat([cls, h], dim=1), mask

    def _least(self) -> list[int]:
        """The smallest size of a sample along each axis."""
        return [self.patch] * len(self.grid)

    def _embed_patches(self, x: Tensor) -> Tensor:
        return self.patch_embed(self._fit_to_patches(x).nan_to_num())

    def _attention_mask(self, x: Tensor, keep: Tensor | None) -> Tensor | None:
        """(B, 1 + n), the class token and those of `keep` that are not all padding; None for all."""
        valid = self.present(x)  # (B, N)
        if valid is None:
            return None
        valid = valid if keep is None else valid.gather(1, keep)
        return F.pad(valid, (1, 0), value=True)  # the class token is always attended to

    def _positions(self, x: Tensor) -> Tensor:
        """Positional embeddings (1, 1 + N, dim) for the size of x: bicubic interpolation (DINO's code), linear for series."""
        grid = self._grid(x)
        if grid == self.grid:
            return self.pos_embed
        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        resized = F.interpolate(table, size=grid, mode="linear" if len(grid) == 1 else "bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        return {"pos_embed": (1, self.grid)}

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        """Number of patches along each axis; of a series, after padding."""
        return tuple(s // self.patch if x.ndim == 4 else -(-s // self.patch) for s in x.shape[2:])

    def patchify(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, p * p * C), or (B, C, T) -> (B, N, p * C): pixels in row-major order, channels last."""
        grid, x = self._grid(x), self._fit_to_patches(x)
        b, c, p = x.shape[0], x.shape[1], self.patch
        if len(grid) == 1:
            return x.view(b, c, *grid, p).permute(0, 2, 3, 1).reshape(b, grid[0], -1)
        h, w = grid
        return x.view(b, c, h, p, w, p).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w, -1)

    def unpatchify(self, patches: Tensor) -> Tensor:
        b, c, p = patches.shape[0], self.input_shape[0], self.patch
        if len(self.grid) == 1:
            whole = patches.view(b, *self.grid, p, c).permute(0, 3, 1, 2).reshape(b, c, -1)
            return whole[:, :, : self.input_shape[1]]
        h, w = self.grid
        return patches.view(b, h, w, p, p, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h * p, w * p)

    def token_positions(self, dim: int) -> Tensor:
        return torch.cat([torch.zeros(1, dim), sine_positions(self.grid, dim)])

    def _fit_to_patches(self, x: Tensor) -> Tensor:
        """Pad a series with NaN to a multiple of the window; crop an image to full patches, contiguous."""
        sides = [n * self.patch for n in self._grid(x)]
        if len(sides) == 2:
            return x[:, :, : sides[0], : sides[1]].contiguous()
        return F.pad(x, (0, sides[0] - x.shape[2]), value=float("nan"))

    def present(self, x: Tensor) -> Tensor | None:
        """(B, N) bool: tokens with at least one value. None for images, which have no padding and use faster kernels."""
        return None if len(self.grid) == 2 else ~self.patchify(x).isnan().all(dim=2)

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        h, mask = self._embed(x)
        blocks: list[Any] = list(self.blocks)
        last = blocks.pop()
        for block in blocks:
            h = block(h, mask)
        return received_attention(last.attn, last.norm1(h), mask, self.prefix, self.pool == "cls")


class PatchEmbed(nn.Module):
    """(B, C, *size) -> (B, N, width): a convolution with stride equal to the kernel size."""

    def __init__(self, channels: int, width: int, patch: int, axes: int):
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv1d
        self.proj = conv(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def patch_size(size: list[int], patch: int | str) -> int:
    """The side of a patch for an image [H, W] or a series [T]. RequestError with the nearest valid value."""
    if len(size) == 1:
        if patch == "auto":
            window = max(round(size[0] / 32), 1)
            near = [d for d in range(1, size[0] + 1) if size[0] % d == 0 and window / 1.5 <= d <= window * 1.5]
            return min(near, key=lambda d: abs(d - window), default=window)
        if isinstance(patch, str) or not 1 <= patch <= size[0]:
            raise RequestError(
                f"backbone.patch: expected an integer from 1 to {size[0]} (the steps of a series) or auto, got {patch!r}",
                "backbone.patch=auto",
            )
        return patch
    common = math.gcd(*size)
    divisors = [d for d in range(1, common + 1) if common % d == 0]
    target: float = min(max(max(size) / 8, 2), 16)
    if patch != "auto":
        target = 0 if isinstance(patch, str) else patch
    if target < 1:
        raise RequestError(f"backbone.patch: expected a positive integer or auto, got {patch!r}", "backbone.patch=auto")
    best = min(divisors, key=lambda d: (abs(d - target), -d))
    shape = " x ".join(map(str, size))
    step = round(target)
    if patch == "auto":
        if math.prod(s // best for s in size) > MAX_TOKENS or (best == min(size) and best > 2 * target):
            other = max(round(max(size) / step), 2) * step
            raise RequestError(
                f"no patch of about {step} divides an image of {shape}",
                f"dataset.image_size={other}, or backbone.patch=NUMBER",
            )
        return best
    if best != patch:
        other = max(round(max(size) / step), 1) * step
        raise RequestError(
            f"backbone.patch={patch} does not divide an image of {shape}",
            f"backbone.patch={best}, or dataset.image_size={other}",
        )
    return best
