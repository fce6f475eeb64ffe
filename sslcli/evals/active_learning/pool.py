"""The samples to choose from, and what a rule returns."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    unit: (n, d), the features on the unit sphere, where the squared distance is 2 - 2 cos. labeled: (m,) int64, ascending: the
    samples that have a label.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    expected_classes: int = 10
    unit: Tensor = field(init=False, repr=False)
    labeled: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", F.normalize(self.features, dim=1))
        object.__setattr__(self, "labeled", torch.nonzero(self.labels >= 0).flatten())

    def __len__(self) -> int:
        return len(self.features)


def distance(cosine: Tensor) -> Tensor:
    """Euclidean distance of unit vectors with these cosines."""
    return (2 - 2 * cosine).clamp_(min=0).sqrt_()
