"""Paired comparison of two models on the same test items: difference in accuracy, its interval and p-value. Imports no torch.

All statistics are functions of the score (m,) of each model on m items. Of classes it is the correctness: the fraction of its
draws of labeled samples in which its prediction was right. With several draws an item counts once, so intervals and p-values
refer to other test items given these draws. Of recommendations an item is a user, whose score follows from the rank of the next
item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Correctness = NDArray[np.float64]
Test = Literal["McNemar", "permutation"]
RESAMPLES = 10_000
LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Difference:
    """Difference in accuracy, or in the mean of another score, second minus first.

    `low`, `high`: paired bootstrap interval of the difference. `better`, `worse`: number of items on which the second model
    was right in more, or in fewer, draws than the first, or has the higher or the lower score. `p`: p-value of `test`.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    items: int
    test: Test = "McNemar"


def compare(
    first: Correctness, second: Correctness, seed: int = 0, resamples: int = RESAMPLES, test: Test = "McNemar"
) -> Difference:
    """Compare the scores of two models, both (m,) in 0 .. 1, of the same items in the same order."""
    assert first.shape == second.shape != (0,), (first.shape, second.shape)
    change = second - first
    low, high = bootstrap(change, seed, resamples)
    better, worse = int((change > 1e-12).sum()), int((change < -1e-12).sum())
    return Difference(
        float(first.mean()),
        float(second.mean()),
        float(change.mean()),
        low,
        high,
        better,
        worse,
        mcnemar(better, worse) if test == "McNemar" else permutation(change, seed, resamples),
        len(first),
        test,
    )


def bootstrap(
    change: Correctness, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `change` (m,) over items (Efron & Tibshirani 1993, Sec. 13.3).

    The counts of each distinct value of `change` in a resample are multinomial, so the cost depends on the number of distinct
    values (3 for single draws), not on m.
    """
    values, counts = np.unique(np.round(change, 12), return_counts=True)
    many = max(1, 4_000_000 // len(values))  # resamples at a time
    generator = np.random.default_rng(seed)
    means = [
        generator.multinomial(len(change), counts / len(change), size=min(many, resamples - done)) @ values
        for done in range(0, resamples, many)
    ]
    low, high = np.quantile(np.concatenate(means) / len(change), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p-value of McNemar's exact (binomial) test (McNemar 1947), from the numbers of discordant items.

    With several draws per item it is the sign test over items, of which McNemar's is the special case of one draw.
    """
    n, fewer = better + worse, min(better, worse)
    ways = tail = 1  # binomial coefficient (n, k), and the sum of those up to k
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def permutation(change: Correctness, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of the paired randomization test of the mean of `change` (m,): under the null hypothesis, each
    difference has either sign with the same probability (Fisher 1935; for rankings Smucker et al., CIKM 2007).

    Of the items with the same absolute difference, the number of positive signs is binomial. The observed signs count as one of the
    resamples, so the value is at least 1 / (resamples + 1).
    """
    values, counts = np.unique(np.round(np.abs(change), 12), return_counts=True)
    many = max(1, 4_000_000 // len(values))
    generator = np.random.default_rng(seed)
    observed = abs(float(np.round(change, 12).sum())) - 1e-9
    extreme = 0
    for done in range(0, resamples, many):
        positive = generator.binomial(counts, 0.5, size=(min(many, resamples - done), len(values)))
        extreme += int((np.abs((2 * positive - counts) @ values) >= observed).sum())
    return (extreme + 1) / (resamples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons (Holm 1979); controls the family-wise error rate."""
    result, worst = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[i]))
        result[i] = worst
    return result
