"""Images split into a grid of tiles, for pretext tasks on their arrangement."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_TILE = 16  # pixels; smaller tiles are upsampled, at most to the size of the image
MIN_JITTERED_CELL = 8  # pixels; in larger cells a tile is a random part of its cell


def tile_size(shape: tuple[int, ...], grid: int) -> int:
    """Side of a tile of images (C, H, W). ValueError for an image with fewer than `grid` pixels per side."""
    cell = min(shape[1:]) // grid
    if cell < 1:
        raise ValueError(f"an image of {shape[1]} x {shape[2]} pixels has no {grid} x {grid} tiles")
    return max(_inner(cell), min(*shape[1:], MIN_TILE))


def extract_tiles(x: Tensor, grid: int, places: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, grid * grid, C, s, s), row by row; s is `tile_size`.

    Against shortcuts (Noroozi & Favaro, ECCV 2016, Sec. 4.2; Doersch et al., ICCV 2015, Sec. 3.1): in cells of 8 pixels and more
    a tile is 7/8 of its cell, at a position given by `places` (B, grid * grid, 2) in [0, 1), which leaves gaps; and each tile is
    standardized per channel.
    """
    b, c, h, w = x.shape
    high, wide = h // grid, w // grid
    cells = x[:, :, : high * grid, : wide * grid].view(b, c, grid, high, grid, wide)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(b * grid * grid, c, high, wide)
    tile_h, tile_w = _inner(high), _inner(wide)
    if (tile_h, tile_w) != (high, wide):
        at = places.reshape(-1, 2)
        rows = (at[:, 0] * (high - tile_h + 1)).long()[:, None] + torch.arange(tile_h, device=x.device)  # (n, tile_h)
        columns = (at[:, 1] * (wide - tile_w + 1)).long()[:, None] + torch.arange(tile_w, device=x.device)
        index = torch.arange(len(cells), device=x.device)
        cells = cells.permute(0, 2, 3, 1)[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
            0, 3, 1, 2
        )
    size = tile_size((c, h, w), grid)
    if cells.shape[2:] != (size, size):
        cells = F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)
    mean = cells.mean(dim=(2, 3), keepdim=True)
    std = cells.var(dim=(2, 3), keepdim=True, unbiased=False).add(1e-4).sqrt()
    return ((cells - mean) / std).view(b, grid * grid, c, size, size)


def _inner(cell: int) -> int:
    return cell - max(1, cell // 8) if cell >= MIN_JITTERED_CELL else cell
