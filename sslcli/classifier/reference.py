"""How far a sample is from the training samples: its k-NN distance as a percentile of their own.

The distance is the mean cosine distance to the k nearest neighbors, as in the `knn` score of the evaluator `anomaly` (Sun et al.,
"Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, who take the distance to the k-th alone).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.rng import derive, order

SIZE = 4096  # training samples that are kept, at most
NEIGHBORS = 5
ROWS = 512  # rows of a table of similarities


@dataclass
class Reference:
    """Directions of some training features, and the k-NN distance of each to the others.

    features: (m, d) float16, of length 1. distances: (m,) float32, ascending. neighbors: k.
    """

    features: Tensor
    distances: Tensor
    neighbors: int
    bank: Tensor = field(init=False, repr=False)  # the features in float32, of length 1 again

    def __post_init__(self) -> None:
        self.bank = F.normalize(self.features.float(), dim=1)

    @classmethod
    def of(cls, features: Tensor) -> Reference:
        """Of training features (m, d), m at least 2."""
        k = min(NEIGHBORS, len(features) - 1)
        kept = cls(F.normalize(features.float(), dim=1).half(), torch.empty(0), k)
        tables = (part @ kept.bank.T for part in kept.bank.split(ROWS))
        near = torch.cat([table.topk(k + 1, dim=1).values[:, 1:] for table in tables])  # without the sample itself
        return replace(kept, distances=(1 - near.mean(dim=1)).sort().values)

    def distance(self, z: Tensor) -> Tensor:
        """The k-NN distance (n,) of features (n, d) on the CPU."""
        similarity = F.normalize(z.float(), dim=1) @ self.bank.T
        return 1 - similarity.topk(self.neighbors, dim=1).values.mean(dim=1)

    def percentile(self, z: Tensor) -> Tensor:
        """(n,) float64, from 0 to 100: the share of the kept training samples that are no farther from the others than each
        sample is from them."""
        rank = torch.searchsorted(self.distances, self.distance(z).contiguous(), right=True)
        return 100 * rank.double() / len(self.distances)


def reference_rows(n: int, seed: int) -> Tensor:
    """The rows (m,) of n training samples that are kept, ascending."""
    return order(derive(seed, "reference"), 0, n)[:SIZE].sort().values
