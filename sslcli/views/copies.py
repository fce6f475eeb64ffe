"""Near copies of samples: the same content after changes that people do not notice, such as another encoding or a small crop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class NearCopies(ABC):
    """How near copies are found: samples with similar descriptors are compared in detail.

    All tensors are of clean views (B, *shape), normalized, and of one device."""

    note: ClassVar[str]  # which changes are recognized, in words
    candidate: ClassVar[float]  # the least cosine of the descriptors of two samples that are compared
    threshold: ClassVar[float]  # the least similarity of near copies
    by_chance: ClassVar[bool] = (
        False  # whether different samples may be as similar, such as rows of few distinct values
    )
    doubt: ClassVar[str] = ""  # why a pair that is not confirmed is to be looked at, in words

    @abstractmethod
    def describe(self, x: Tensor) -> Tensor:
        """Descriptors (B, p) float32 with norm 1, or 0 for samples without any content, which have no near copies."""

    def variants(self, descriptors: Tensor) -> list[Tensor]:
        """The descriptors (B, p) of all forms of the samples that count as copies: the samples themselves first, then, for example,
        mirrored ones."""
        return [descriptors]

    @abstractmethod
    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """The similarity (m,) of m pairs of samples (m, *shape): 1 for equal ones, about 0 for unrelated ones."""

    def confirmed(self, a: Tensor, b: Tensor) -> Tensor:
        """(m,) bool: of m pairs that are similar enough, whether one of the two may be left out; the others are to be looked at."""
        return torch.full((len(a),), not self.by_chance, device=a.device)


def unit(x: Tensor) -> Tensor:
    """Rows (B, p) without their means, with norm 1; rows that are constant become 0."""
    x = x - x.mean(dim=1, keepdim=True)
    norm = x.norm(dim=1, keepdim=True)
    return F.normalize(x, dim=1).masked_fill(norm <= 1e-6 * x.shape[1] ** 0.5, 0.0)


class FeatureCopies(NearCopies):
    """Near copies have nearly the same raw features, up to their scale."""

    note: ClassVar[str] = "samples whose raw features have a correlation of at least 0.99"
    candidate: ClassVar[float] = 0.99
    threshold: ClassVar[float] = 0.99
    by_chance: ClassVar[bool] = True

    def __init__(self, features: Callable[[Tensor], Tensor]):
        self.features = features

    def describe(self, x: Tensor) -> Tensor:
        return unit(self.features(x))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.describe(a) * self.describe(b)).sum(dim=1)
