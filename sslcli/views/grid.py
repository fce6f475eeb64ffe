"""Samples of real numbers on a regular grid, (C, *size): time series (one axis), images (two) and clips of frames (three)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.dataset import Dataset
from sslcli.nn.values import Values
from sslcli.views.modality import Modality, RawFeatures

ADAPTIVE: dict[int, Callable[..., Tensor]] = {  # by the number of axes
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
HALVING: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # interpolation


class GridMeans(RawFeatures):
    """The values of (B, C, *size), area-averaged to at most `limit` places on each axis."""

    def __init__(self, limit: int):
        self.limit = limit

    def transform(self, x: Tensor) -> Tensor:
        """NaN (padding) is left out of the averages; a cell of padding alone becomes 0, the mean of normalized data."""
        known = ~torch.isnan(x)
        sizes = tuple(min(side, self.limit) for side in x.shape[2:])
        if sizes != tuple(x.shape[2:]):
            pool = ADAPTIVE[x.ndim - 2]
            share = pool(known.float(), sizes)
            x = pool(x.nan_to_num(0.0), sizes) / share.clamp(min=1e-6)
        return x.nan_to_num(0.0).flatten(1)


class GridModality(Modality):
    """Base class of such modalities."""

    mixes = True
    raw_limit: int  # places on an axis, or values of all channels for a single axis, in the raw features

    def raw_features(self, dataset: Dataset) -> RawFeatures:
        channels, *size = dataset.shape
        return GridMeans(self.raw_limit if len(size) > 1 else max(1, self.raw_limit // channels))

    def upsample(self, importance: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Linear between the centers of the positions."""
        size = shape[1:]
        return F.interpolate(importance[:, None], size=size, mode=LINEAR[len(size)], align_corners=False)

    def interpolate(self, x: Tensor, known: Tensor) -> Tensor:
        return fill(x, known)

    def trivial(self, x: Tensor, visible: Tensor, values: Values) -> dict[str, Tensor]:
        space = tuple(range(2, x.ndim))
        level = torch.where(visible, x, 0.0).sum(dim=space, keepdim=True) / visible.sum(dim=space, keepdim=True).clamp(
            min=1
        )
        return {"visible": level.expand_as(x), "interpolated": fill(x, visible)}


def fill(x: Tensor, known: Tensor) -> Tensor:
    """What is not `known` of (B, C, *size) from what is: means of known neighbors at ever coarser scales.

    Push-pull interpolation (Gortler et al., "The Lumigraph", SIGGRAPH 1996, Sec. 3.4), with equal weights: halve until there is
    one value, and on the way back fill each hole from the coarser scale, linearly. 0 where nothing is known at all.
    """
    x = torch.where(known, x, 0.0)
    size = x.shape[2:]
    if max(size) == 1:
        return x
    pool = HALVING[x.ndim - 2]
    kernel = [min(side, 2) for side in size]
    share = pool(known.to(x.dtype), kernel, ceil_mode=True)
    coarse = pool(x, kernel, ceil_mode=True) / share.clamp(min=1e-6)
    guess = F.interpolate(fill(coarse, share > 0), size=size, mode=LINEAR[len(size)], align_corners=False)
    return torch.where(known, x, guess)
