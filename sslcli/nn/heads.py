"""Projection and prediction heads: MLPs on top of a backbone that are discarded after pretraining."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

Width = int | str  # an integer, or "auto"


class AutoWidth(int):
    """A width that `auto` chose: the paper's, `limit`, or less for a small backbone."""

    limit: int


def head_width(width: Width, paper: int, dim: int) -> int:
    """Resolve a width of a head: `auto` is min(paper, 4 x `dim`), with `dim` the width of the backbone. ValueError."""
    if width == "auto":
        auto = AutoWidth(min(paper, 4 * dim))
        auto.limit = paper
        return auto
    if isinstance(width, str | bool) or width < 1:
        raise ValueError(f"the width of a head must be a positive integer or auto, got {width!r}")
    return width


class Head(nn.Sequential):
    """(B, first width) -> (B, last width), with a description of its widths for the start screen."""

    def __init__(self, layers: list[nn.Module], widths: tuple[int, ...]):
        super().__init__(*layers)
        self.widths = tuple(int(w) for w in widths)
        self.limits = sorted({w.limit for w in widths if isinstance(w, AutoWidth)}, reverse=True)

    def describe(self) -> str:
        """`128-512-512 (auto: 4 x backbone width, at most 2048)`."""
        auto = f" (auto: 4 x backbone width, at most {', '.join(map(str, self.limits))})" if self.limits else ""
        return "-".join(map(str, self.widths)) + auto


def mlp(*widths: int, norm: bool = True, last_norm: str = "none", last_bias: bool = True) -> Head:
    """Linear-(BatchNorm)-ReLU for each pair of widths; the last layer has no ReLU.

    `norm`: batch norm after the hidden layers. `last_norm`: what follows the last layer: `none`, `plain` (batch norm
    without scale and shift) or `affine`. A linear layer before a batch norm has no bias, because the norm would cancel it.
    """
    assert len(widths) >= 2, widths
    assert last_norm in ("none", "plain", "affine"), last_norm
    sizes = [int(w) for w in widths]
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes[:-1]):
        layers.append(nn.Linear(i, o, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(o))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=last_norm == "none" and last_bias))
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(sizes[-1], affine=last_norm == "affine"))
    return Head(layers, widths)


def gelu_head(*widths: int, norm: bool = False) -> Head:
    """Linear-(BatchNorm)-GELU for each pair of widths, no activation after the last: DINO's head before its last layer.

    Weights from N(0, 0.02^2) truncated, biases zero, as in the authors' code; a linear layer before a batch norm has no
    bias."""
    sizes = [int(w) for w in widths]
    layers: list[nn.Module] = []
    for n, (i, o) in enumerate(pairwise(sizes)):
        hidden = n < len(sizes) - 2
        linear = nn.Linear(i, o, bias=not (norm and hidden))
        nn.init.trunc_normal_(linear.weight, std=0.02)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        layers.append(linear)
        if hidden:
            layers += [nn.BatchNorm1d(o), nn.GELU()] if norm else [nn.GELU()]
    return Head(layers, widths)
