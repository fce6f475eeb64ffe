"""Tensors of pretrained networks for samples of another size: positional embeddings, patch embeddings and first convolutions.

Resampling is that of timm (`resample_abs_pos_embed`, `resample_patch_embed`, `adapt_input_conv`), so that features are those of
timm's networks of that size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, ...]


def adapted(
    name: str, value: Tensor, target: Tensor, backbone: nn.Module, prefix: str = ""
) -> tuple[Tensor, str] | None:
    """`value`, the tensor `name` of a file, in the shape of `target`, and what was done; None where there is no such map.

    `prefix`: of the backbone's names, which `name` lacks."""
    tables: dict[str, tuple[int, Grid]] = getattr(backbone, "position_tables", dict)()
    if prefix + name in tables:
        return _positions(name, value, target, *tables[prefix + name])
    if (
        prefix + name == f"{first_convolution(backbone)}.weight"
        and value.ndim == target.ndim == 4
        and len(value) == len(target)
    ):
        return _convolution(
            name, value, target, is_patch_embedding=name.endswith(("patch_embed.proj.weight", "conv_proj.weight"))
        )
    return None


def first_convolution(backbone: nn.Module) -> str | None:
    return next((name for name, m in backbone.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d)), None)


def _positions(name: str, value: Tensor, target: Tensor, extra: int, grid: Grid) -> tuple[Tensor, str] | None:
    """A table (1, extra + N, D) of another grid, interpolated. Without its `extra` rows in the file, or for a grid that is not a
    square, there is no map."""
    n = value.shape[1] - extra if value.ndim == 3 else 0
    old = square(n) if len(grid) == 2 else (n,)
    if value.ndim != 3 or n < 1 or old is None or value.shape[2] != target.shape[2]:
        return None
    table = resample_positions(value.float(), extra, old, grid)
    return table, f"{name} interpolated from a grid of {_text(old)} to {_text(grid)}"


def square(n: int) -> Grid | None:
    """The sides of a square of n patches."""
    side = math.isqrt(max(n, 0))
    return (side, side) if side * side == n else None


def resample_positions(table: Tensor, extra: int, old: Grid, new: Grid) -> Tensor:
    """(1, extra + N, D) of the grid `old` to the grid `new`: bicubic with antialiasing, or linear along one axis. The first
    `extra` rows are kept."""
    grid = table[:, extra:].transpose(1, 2).unflatten(2, old)
    if len(new) == 2:
        grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    else:
        grid = F.interpolate(grid, size=new, mode="linear", align_corners=False)
    return torch.cat([table[:, :extra], grid.flatten(2).transpose(1, 2)], dim=1)


def _convolution(name: str, value: Tensor, target: Tensor, is_patch_embedding: bool) -> tuple[Tensor, str] | None:
    done, weight = [], value.float()
    if value.shape[2:] != target.shape[2:]:
        if not is_patch_embedding:
            return None
        weight = resample_patch(weight, tuple(target.shape[2:]))
        done.append(f"patches of {_text(value.shape[2:])} to {_text(target.shape[2:])}")
    if value.shape[1] != target.shape[1]:
        weight = convert_channels(weight, target.shape[1])
        done.append(f"{value.shape[1]} to {target.shape[1]} channels")
    return weight, f"{name} converted from {' and from '.join(done)}"


def convert_channels(weight: Tensor, channels: int) -> Tensor:
    """(O, I, H, W) for another number of channels: summed for one, else repeated and scaled so that the sum stays the same."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    own = weight.shape[1]
    return weight.repeat(1, -(-channels // own), 1, 1)[:, :channels] * (own / channels)


def resample_patch(weight: Tensor, size: Grid) -> Tensor:
    """(O, I, h, w) for patches of another size: the least-squares solution for which a resized patch has the same embedding.

    Beyer et al., "FlexiViT", CVPR 2023, arXiv:2212.08013, eq. (5): the pseudo-inverse of the matrix that resizes a patch."""
    h, w = weight.shape[2:]
    basis = torch.eye(h * w).view(h * w, 1, h, w)
    resize = F.interpolate(basis, size=size, mode="bicubic", antialias=True, align_corners=False).flatten(1)  # (hw, HW)
    return (weight.flatten(2) @ torch.linalg.pinv(resize).T).unflatten(2, size)


def _text(sides: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, sides))
