"""How far a sample is from the training samples: its k-NN distance as a percentile of their own.

The distance is the mean Euclidean distance to the k nearest neighbors (Bergman, Cohen & Hoshen, "Deep Nearest Neighbor Anomaly
Detection", arXiv:2002.10445), of features that are standardized, because backbones scale their dimensions differently. Directions
alone, as in the `knn` score of the evaluator `anomaly`, ignore the norm: of pictures unlike any photo it is what tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sslcli.rng import derive, order

SIZE = 4096  # training samples that are kept, at most
NEIGHBORS = 5
ROWS = 512  # rows of a table of distances
LEAST = 0.01  # of the mean standard deviation: dimensions that hardly vary in training are not amplified further
LARGEST = 60_000.0  # that float16 holds


@dataclass
class Reference:
    """Standardized features of some training samples, and the k-NN distance of each to the others.

    features: (m, d) float16. mean, scale: (d,) float32, of the standardization. distances: (m,) float32, ascending. neighbors: k.
    """

    features: Tensor
    mean: Tensor
    scale: Tensor
    distances: Tensor
    neighbors: int
    bank: Tensor = field(init=False, repr=False)  # the features in float32
    squares: Tensor = field(init=False, repr=False)  # (m,)

    def __post_init__(self) -> None:
        self.bank = self.features.float()
        self.squares = self.bank.square().sum(dim=1)

    @classmethod
    def of(cls, features: Tensor) -> Reference:
        """Of training features (m, d), m at least 2."""
        x, k = features.float(), min(NEIGHBORS, len(features) - 1)
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        level = float(std.mean())
        scale = 1 / std.clamp(min=LEAST * level) if level > 0 else torch.ones_like(std)
        kept = cls(_standardized(x, mean, scale).half(), mean, scale, torch.empty(0), k)
        return replace(kept, distances=kept._others().sort().values)

    def _others(self) -> Tensor:
        """The k-NN distance (m,) of each kept sample to the others."""
        found = []
        for start in range(0, len(self.bank), ROWS):
            table = self._squared(self.bank[start : start + ROWS])
            row = torch.arange(len(table))
            table[row, start + row] = torch.inf  # the sample itself
            found.append(self._mean(table))
        return torch.cat(found)

    def _squared(self, x: Tensor) -> Tensor:
        """Squared distances (n, m) of standardized features (n, d)."""
        return torch.addmm(self.squares[None], x, self.bank.T, alpha=-2).add_(x.square().sum(dim=1)[:, None])

    def _mean(self, squared: Tensor) -> Tensor:
        return squared.topk(self.neighbors, dim=1, largest=False).values.clamp_(min=0).sqrt().mean(dim=1)

    def distance(self, z: Tensor) -> Tensor:
        """The k-NN distance (n,) of features (n, d) on the CPU."""
        return self._mean(self._squared(_standardized(z.float(), self.mean, self.scale)))

    def percentile(self, z: Tensor) -> Tensor:
        """(n,) float64, from 0 to 100: the share of the kept training samples that are no farther from the others than each
        sample is from them."""
        rank = torch.searchsorted(self.distances, self.distance(z).contiguous(), right=True)
        return 100 * rank.double() / len(self.distances)


def _standardized(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return ((x - mean) * scale).clamp(-LARGEST, LARGEST)


def reference_rows(n: int, seed: int) -> Tensor:
    """The rows (m,) of n training samples that are kept, ascending."""
    return order(derive(seed, "reference"), 0, n)[:SIZE].sort().values
