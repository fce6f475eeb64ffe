"""Agreement of a clustering with classes: accuracy after matching, NMI, ARI; and of clusterings with each other."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

NOISE = -1  # the cluster of samples that belong to none


def agreement(assignment: Tensor, y_true: Tensor) -> dict[str, float]:
    """`acc`, `nmi` and `ari` of clusters (n,) and classes (n,), over the samples that have a class."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    known = y_true >= 0
    a, b = assignment[known].numpy(), y_true[known].numpy()
    counts = contingency(assignment, y_true)
    clusters, classes = matching(counts[:-1])
    return {
        "acc": int(counts[clusters, classes].sum()) / int(counts.sum()),
        "nmi": float(normalized_mutual_info_score(b, a)),
        "ari": float(adjusted_rand_score(b, a)),
    }


def mean_ari(assignments: list[Tensor]) -> float:
    """The mean over pairs of assignments (n,)."""
    from sklearn.metrics import adjusted_rand_score

    pairs = list(combinations([a.numpy() for a in assignments], 2))
    return sum(float(adjusted_rand_score(a, b)) for a, b in pairs) / len(pairs)


def contingency(assignment: Tensor, y_true: Tensor, clusters: int = 0, classes: int = 0) -> Tensor:
    """(clusters + 1, classes) int64: how many samples of each class are in each cluster; the last row is noise."""
    known = y_true >= 0
    a, y = assignment[known], y_true[known]
    k, c = max(clusters, int(assignment.max()) + 1), max(classes, int(y.max()) + 1)
    a = torch.where(a == NOISE, k, a)
    return torch.bincount(a * c + y, minlength=(k + 1) * c).view(k + 1, c)


def matching(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Which clusters (m,) are which classes (m,), m the smaller number of both, so that most samples are right."""
    from scipy.optimize import linear_sum_assignment

    clusters, classes = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(clusters), torch.from_numpy(classes)
