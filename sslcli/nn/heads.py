"""Projectors and predictors: small perceptrons on top of a backbone, thrown away after pretraining."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

Width = int | str  # a number, or "auto"


def resolve(width: Width, paper: int, dim: int) -> int:
    """`auto` is the paper's width, but at most 4 x `dim`: a small backbone is not dwarfed by its heads."""
    if width == "auto":
        return min(paper, 4 * dim)
    if isinstance(width, str | bool) or width < 1:
        raise ValueError(f"a head's width is a positive number or auto, not {width!r}")
    return width


def mlp(*widths: int, norm: bool = True, last_norm: str = "none", last_bias: bool = True) -> nn.Sequential:
    """Linear-(BatchNorm)-ReLU for each pair of widths; the last layer has no ReLU.

    `norm`: batch norm after the hidden layers. `last_norm`: what follows the last layer: `none`, `plain` (batch norm
    without scale and shift) or `affine`. A linear layer before a batch norm has no bias, the norm would cancel it.
    """
    assert len(widths) >= 2, widths
    assert last_norm in ("none", "plain", "affine"), last_norm
    layers: list[nn.Module] = []
    for i, o in pairwise(widths[:-1]):
        layers.append(nn.Linear(i, o, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(o))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_norm == "none" and last_bias))
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_norm == "affine"))
    return nn.Sequential(*layers)


def shape_of(head: nn.Module) -> str:
    """`128-512-512`: the widths of a perceptron, for people."""
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    return "-".join(str(w) for w in (linear[0].in_features, *(m.out_features for m in linear)))


def told(head: nn.Module, **auto: tuple[Width, int]) -> str:
    """`128-512-512 (auto: 4 x backbone width, at most 2048)`; `auto`: name -> (what was asked, the paper's width)."""
    caps = sorted({paper for asked, paper in auto.values() if asked == "auto"}, reverse=True)
    why = f" (auto: 4 x backbone width, at most {', '.join(map(str, caps))})" if caps else ""
    return shape_of(head) + why
