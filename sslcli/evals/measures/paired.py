"""Two models on the same test items: is one better, and by how much? Imports no torch.

Everything is a function of who was right where: `right` is (m,) for m items, the share of a model's draws (of labelled
samples) in which it was right on the item. So with several draws an item counts once, and what is said holds for other test
items, given these draws: draws of labels are no further test items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sslcli.errors import RequestError

Rights = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Of accuracy, second less first. `low`, `high`: the paired bootstrap's interval. `better`, `worse`: items on which the
    second was right in more, or in fewer, draws than the first. `p`: of McNemar's exact test."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    items: int


def compare(first: Rights, second: Rights, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """`second` against `first`, both (m,) in 0 .. 1, of the same items in the same order."""
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
        mcnemar(better, worse),
        len(first),
    )


def bootstrap(change: Rights, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of the mean of `change` (m,) over resampled items (Efron & Tibshirani 1993, Sec. 13.3).

    A resample of m items is known by how often each value of `change` occurs in it, which is multinomial: with few different
    values (3 of one draw against one) it costs nothing, however many the items.
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
    """The two-sided exact p-value that items on which two models differ fall to either side alike (McNemar 1947, in its
    binomial form). Of several draws it is the sign test over items, of which McNemar's is the case of one."""
    if better + worse == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5).pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values for several comparisons made at once (Holm 1979): the chance of any false one stays below the level."""
    found, worst = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[i]))
        found[i] = worst
    return found


Said = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # ids (m,), truth (m,), predicted (draws, m)


def aligned(a: Said, b: Said) -> tuple[NDArray[np.int64], Rights, Rights]:
    """The ids of the items that both were asked, and who was right on them. RequestError where there is none, or where the
    truths differ."""
    ids, of_a, of_b = np.intersect1d(a[0], b[0], return_indices=True)
    if not len(ids):
        raise RequestError("not one test item is the same")
    if (a[1][of_a] != b[1][of_b]).any():
        raise RequestError("the same test items have different labels: the data was labelled anew between the two")
    rights = [(said[2] == said[1]).mean(axis=0)[rows] for said, rows in ((a, of_a), (b, of_b))]
    return ids, rights[0], rights[1]
