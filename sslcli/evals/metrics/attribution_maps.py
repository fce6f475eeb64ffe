"""Attribution maps: attention and Grad-CAM, and their evaluation by deletion and insertion.

B samples, h heads, N patches, C channels; `size` is the grid of places, one axis for series and two for images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import TokenBackbone
from sslcli.errors import RequestError
from sslcli.rng import derive

Score = Callable[[Tensor], Tensor]  # features (B, dim) -> (B,)


def attention(backbone: TokenBackbone, x: Tensor) -> Tensor:
    """(B, h, *grid): attention that each patch receives in the last block; the sum over patches is at most 1."""
    return backbone.attention(x).unflatten(2, backbone.grid)


def last_feature_layer(backbone: nn.Module, x: Tensor) -> nn.Module:
    """The module that gives the last feature map (B, C, *size) with more than one place; RequestError where there is none.

    `x` is a batch to try it with.
    """
    mixes = [type(m).__name__ for m in backbone.modules() if "attention" in type(m).__name__.lower()]
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor) and out.ndim == x.ndim and math.prod(out.shape[2:]) > 1:
            seen.append(module)

    handles = [m.register_forward_hook(note) for m in backbone.modules() if m is not backbone]
    try:
        with torch.no_grad():
            backbone(x)
    finally:
        for handle in handles:
            handle.remove()
    if mixes or not seen:
        why = f"its {mixes[0]} is not ours" if mixes else "it has no map of features"
        raise RequestError(
            f"{type(backbone).__name__} cannot be explained: {why}",
            "vit_micro, vit_tiny and larger, convnet, resnet*, tcn, and convolutional networks of torchvision and timm can",
        )
    return seen[-1]


def feature_map(backbone: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """(B, C, *size): what `layer` gives."""
    captured: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, out: captured.append(out.detach().clone()))
    try:
        with torch.no_grad():
            backbone(x)
    finally:
        handle.remove()
    return captured[-1]


def grad_cam(backbone: nn.Module, layer: nn.Module, x: Tensor, score: Score) -> Tensor:
    """(B, *size): relu(sum_k alpha_k A_k), alpha_k the mean over places of d score / d A_k. Selvaraju et al., "Grad-CAM", ICCV
    2017, Eq. 1-2."""
    captured: list[Tensor] = []

    def cut(_: nn.Module, __: object, out: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on only: what comes before would fill memory for nothing
        captured.append(out.detach().requires_grad_(True))
        return captured[-1].clone()  # what follows may write in place

    handle = layer.register_forward_hook(cut)
    try:
        with torch.no_grad():
            (g,) = torch.autograd.grad(score(backbone(x)).sum(), captured[-1])
    finally:
        handle.remove()
    alpha = g.flatten(2).mean(dim=2)
    return torch.relu(torch.einsum("bc,bc...->b...", alpha, captured[-1].detach()))


def blocks(grid: tuple[int, ...], most: int) -> tuple[Tensor, int]:
    """The block (N,) int64 of each position of a grid, in its order, and the side of a block: the smallest with which at most
    `most` blocks, of equal sides but for those at the ends, cover the grid."""
    side = 1
    while math.prod(-(-n // side) for n in grid) > most:
        side += 1
    index = torch.zeros(1, dtype=torch.int64)
    for n in grid:
        index = (index[:, None] * -(-n // side) + torch.arange(n) // side).flatten()
    return index, side


def random_map(like: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Uniform numbers in the shape of `like` (B, *grid): a function of the sample."""
    generators = [torch.Generator().manual_seed(derive(seed, "random map", i)) for i in ids.tolist()]
    return torch.stack([torch.rand(like.shape[1:], generator=g) for g in generators]).to(like.device)


def pca_colors(tokens: Tensor) -> tuple[Tensor, float]:
    """(m, 3) in 0..1: the first three principal components of features (m, d), each from its 1st to its 99th percentile; and the
    share of the variance that they hold. The sign is that of the largest loading."""
    x = tokens.double()
    x = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(x.T @ x)
    vectors = vectors[:, -3:].flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0)[None]).sign()
    y = x @ vectors
    low, high = (torch.stack([column.kthvalue(k).values for column in y.T]) for k in _ends(len(y)))
    share = float(values[-3:].sum() / values.sum().clamp(min=1e-12))
    y = ((y - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).float()
    return F.pad(y, (0, 3 - y.shape[1])), share


def _ends(n: int) -> tuple[int, int]:
    """Places, from 1, of the 1st and the 99th percentile of n numbers."""
    return max(1, round(0.01 * n)), min(n, max(1, round(0.99 * n)))


def deletion_insertion_curves(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    importance: Tensor,
    blank: Tensor,
    base: Tensor,
    steps: int,
    removable: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Deletion and insertion (B, steps + 1): `score` of the sample as its places are replaced by `blank`, and of `base` as
    they come back, the most important ones first. Petsiuk, Das & Saenko, "RISE", BMVC 2018, Sec. 4.3.

    `importance` has one number for each place, in a shape that broadcasts to x. `removable` (None: all), of the same shape: the
    places that are deleted and inserted; the steps are fractions of their number in each sample.
    """
    if removable is not None:
        importance = importance.masked_fill(~removable, -torch.inf)
    rank = importance.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    n = rank.shape[1] if removable is None else _per_sample(removable.flatten(1).sum(dim=1), importance)
    rank = rank.view(importance.shape)
    deletion, insertion = [], []
    for step in range(steps + 1):
        first = rank < (round(n * step / steps) if isinstance(n, int) else (n * step / steps).round())
        deletion.append(score(torch.where(first, blank, x)))
        insertion.append(score(torch.where(first, x, base)))
    return torch.stack(deletion, dim=1), torch.stack(insertion, dim=1)


def _per_sample(count: Tensor, like: Tensor) -> Tensor:
    """Numbers (B,) in a shape that broadcasts to `like` (B, ...)."""
    return count.view(-1, *[1] * (like.ndim - 1))


def area(curve: Tensor) -> Tensor:
    """Below curves (..., steps + 1) over 0..1, by trapezoids."""
    return torch.trapezoid(curve, dim=-1) / (curve.shape[-1] - 1)
