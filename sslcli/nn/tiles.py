"""Pictures cut into a grid of tiles, for methods that ask how tiles belong together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 16  # pixels; smaller tiles are enlarged, as far as the picture itself is as large
JITTERED = 8  # pixels; in cells from here on a tile is a part of its cell, at a place of its own


def tile_size(shape: tuple[int, ...], grid: int) -> int:
    """The side of a tile of pictures (C, H, W). ValueError for a picture that has no `grid` x `grid` cells."""
    cell = min(shape[1:]) // grid
    if cell < 1:
        raise ValueError(f"a picture of {shape[1]} x {shape[2]} pixels has no {grid} x {grid} tiles")
    return max(_inner(cell), min(*shape[1:], SMALLEST))


def cut(x: Tensor, grid: int, places: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, grid * grid, C, s, s), row by row; s is `tile_size`.

    Against shortcuts (Noroozi & Favaro, ECCV 2016, Sec. 4.2; Doersch et al., ICCV 2015, Sec. 3.1): cells of 8 pixels and
    more leave a gap, a tile being 7/8 of its cell, where `places` (B, grid * grid, 2) in [0, 1) says; and each tile is
    standardised by itself, channel by channel.
    """
    b, c, h, w = x.shape
    high, wide = h // grid, w // grid
    cells = x[:, :, : high * grid, : wide * grid].view(b, c, grid, high, grid, wide)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(b * grid * grid, c, high, wide)
    tall, broad = _inner(high), _inner(wide)
    if (tall, broad) != (high, wide):
        at = places.reshape(-1, 2)
        rows = (at[:, 0] * (high - tall + 1)).long()[:, None] + torch.arange(tall, device=x.device)  # (n, tall)
        columns = (at[:, 1] * (wide - broad + 1)).long()[:, None] + torch.arange(broad, device=x.device)
        one = torch.arange(len(cells), device=x.device)
        cells = cells.permute(0, 2, 3, 1)[one[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    size = tile_size((c, h, w), grid)
    if cells.shape[2:] != (size, size):
        cells = F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)
    mean = cells.mean(dim=(2, 3), keepdim=True)
    std = cells.var(dim=(2, 3), keepdim=True, unbiased=False).add(1e-4).sqrt()
    return ((cells - mean) / std).view(b, grid * grid, c, size, size)


def _inner(cell: int) -> int:
    return cell - max(1, cell // 8) if cell >= JITTERED else cell
