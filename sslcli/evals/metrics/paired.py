"""Paired comparison of two models on the same test items: difference in accuracy, its interval and p-value. Imports no torch.

All statistics are functions of the correctness (m,) of each model on m items: the fraction of its draws of labeled samples
in which its prediction was right. With several draws an item counts once, so intervals and p-values refer to other test
items given these draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sslcli.errors import DataError, RequestError, SslError
from sslcli.runs.files import checked, size_of

if TYPE_CHECKING:
    from sslcli.runs.results import SavedResult

Correctness = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95  # of intervals
ALPHA = 0.05  # of tests: a smaller p-value distinguishes two models


@dataclass(frozen=True)
class Difference:
    """Difference in accuracy, second minus first.

    `low`, `high`: paired bootstrap interval of the difference. `better`, `worse`: number of items on which the second model
    was right in more, or in fewer, draws than the first. `p`: p-value of McNemar's exact test.
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


def compare(first: Correctness, second: Correctness, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Compare the correctness of two models, both (m,) in 0 .. 1, of the same items in the same order."""
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


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons (Holm 1979); controls the family-wise error rate."""
    result, worst = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[i]))
        result[i] = worst
    return result


FILE = "predictions.safetensors"  # beside a result: eval/NAME_predictions.safetensors
PredictionArrays = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]  # ids (m,), labels (m,), predicted (draws, m)


def align(a: PredictionArrays, b: PredictionArrays) -> tuple[NDArray[np.int64], Correctness, Correctness]:
    """Align two models' predictions: the ids of their common items, and the correctness of each model on them.

    Raises RequestError if there is no common item or if the labels of common items differ.
    """
    ids, of_a, of_b = np.intersect1d(a[0], b[0], return_indices=True)
    if not len(ids):
        raise RequestError("the two results have no test item in common")
    if (a[1][of_a] != b[1][of_b]).any():
        raise RequestError("the labels of the same test items differ: the data was relabeled between the two results")
    rights = [
        (read_predictions[2] == read_predictions[1]).mean(axis=0)[rows]
        for read_predictions, rows in ((a, of_a), (b, of_b))
    ]
    return ids, rights[0], rights[1]


def read_predictions(saved: SavedResult) -> PredictionArrays | None:
    """Load the saved predictions of a result; None if there are none. Raises DataError if the file is corrupt."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if size_of(saved.run, saved.artefact_path(FILE)) is None:
        return None
    try:
        result = load_file(checked(saved.run, saved.artefact_path(FILE)))
        ids, labels, predicted = (result[key] for key in ("ids", "truth", "predicted"))
        assert all(v.dtype == np.int64 for v in (ids, labels, predicted)), "expected integers"
        assert ids.ndim == 1, "expected one-dimensional ids"
        assert ids.shape == labels.shape == predicted.shape[1:], "ids, labels and predictions differ in shape"
        assert len(predicted) > 0, "no draws"
    except (OSError, SafetensorError, KeyError, AssertionError) as e:
        why = f"{saved.run / saved.artefact_path(FILE)} cannot be read: {e}"
        raise DataError(why, "evaluate the run again: sslcli eval NAME run=RUN") from None
    return ids, labels, predicted


def same_data(first: SavedResult, second: SavedResult) -> bool:
    """Whether two results were measured on the same data and, of histories of users, on the same items of them."""
    a, b = (
        (saved.record.get("fingerprint"), *((saved.record.get("protocol") or {}).get(k) for k in ("division", "part")))
        for saved in (first, second)
    )
    return bool(a[0]) and a == b


def class_weight(saved: SavedResult) -> str:
    """The weights of classes of a result: a classifier with balanced ones is not made for the highest accuracy."""
    return str((saved.record.get("evaluator") or {}).get("class_weight") or "none")


@dataclass(frozen=True)
class Separation:
    """Whether the better of two results is distinguishable from the other; None if this is unknown."""

    distinguishable: bool | None
    why: str
    difference: Difference | None = None

    @property
    def words(self) -> str:
        result = {True: "distinguishable", False: "not distinguishable", None: "of unknown distinction"}
        return f"{result[self.distinguishable]} from the next ({self.why})"


def separation(first: SavedResult | None, second: SavedResult | None, metric: str, seed: int = 0) -> Separation:
    """Test whether two results differ in one metric (such as `top1`).

    The criterion is McNemar's exact test at the 5 % level if both saved their predictions of the same test samples, and else that
    the difference exceeds the half width that their confidence intervals give it. The bootstrap interval of the difference is
    reported beside the test, and decides nothing: with few discordant samples it is narrower than an exact one, so that it may
    exclude 0 where the test does not reject. Both refer to these trained models, not to training with other seeds.
    """
    if (
        first is None
        or second is None
        or metric not in first.record["numbers"]
        or metric not in second.record["numbers"]
    ):
        return Separation(None, f"{metric} is missing in one of them")
    if not same_data(first, second):
        return Separation(None, "measured on different data")
    if class_weight(first) != class_weight(second):
        return Separation(None, "measured with different evaluator.class_weight")
    values = [saved.record["numbers"][metric] for saved in (first, second)]
    if metric == "top1":
        try:
            a, b = read_predictions(first), read_predictions(second)
            if a is not None and b is not None:
                _, rights_a, rights_b = align(a, b)
                result = compare(rights_b, rights_a, seed)  # difference: first minus second
                clear = result.p < ALPHA
                why = (
                    f"decided by McNemar p {result.p:.2g}, {'' if clear else 'not '}below {ALPHA:g}; difference "
                    f"{result.difference:+.3f}, bootstrap 95 % interval {result.low:+.3f} .. {result.high:+.3f}, "
                    f"{result.items:,} test samples"
                )
                return Separation(clear, why, result)
        except SslError:
            pass  # fall back to the intervals
    spans = [saved.record.get("intervals", {}).get(f"{metric}_ci95", (None, None)) for saved in (first, second)]
    return by_intervals(values[0] - values[1], spans, metric)


def by_intervals(difference: float, spans: Sequence[tuple[float | None, float | None]], metric: str) -> Separation:
    """Unpaired comparison of two metric values by their confidence intervals, which are assumed independent."""
    ends = [(low, high) for low, high in spans if low is not None and high is not None]
    if len(ends) < 2:
        return Separation(None, f"no interval of {metric}")
    half = sum(((high - low) / 2) ** 2 for low, high in ends) ** 0.5
    clear = abs(difference) > half
    why = (
        f"difference {difference:+.3f}, {'above' if clear else 'within'} the ± {half:.3f} by their intervals, unpaired"
    )
    return Separation(clear, why)
