"""The samples to choose from, and what a rule returns."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Pick:
    """A sample to label: its index in the pool, and in a sentence why it is the next one."""

    index: int
    reason: str


@dataclass(frozen=True)
class Pool:
    """n samples, some of which have labels.

    `features`: (n, d) float32, on the CPU. `labels`: (n,) int64, the label of each sample, -1 for none. `classes`: the names of
    the labels. `expected_classes`: how many classes the samples have, as far as one knows.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    expected_classes: int = 10

    def __len__(self) -> int:
        return len(self.features)

    @functools.cached_property
    def unit(self) -> Tensor:
        """(n, d): the features on the unit sphere, where the squared distance is 2 - 2 cos."""
        return F.normalize(self.features, dim=1)

    @functools.cached_property
    def labeled(self) -> Tensor:
        """(m,) int64, ascending: the samples that have a label."""
        return torch.nonzero(self.labels >= 0).flatten()


def distance(cosine: Tensor) -> Tensor:
    """Euclidean distance of unit vectors with these cosines."""
    return (2 - 2 * cosine).clamp_(min=0).sqrt_()
