"""Two models on the same test items: is one better, and by how much? Imports no torch.

Everything is a function of who was right where: `right` is (m,) for m items, the share of a model's draws (of labeled
samples) in which it was right on the item. So with several draws an item counts once, and what is said holds for other test
items, given these draws: draws of labels are no further test items.
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


def compare(first: Correctness, second: Correctness, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
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


def bootstrap(
    change: Correctness, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
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
    n, fewer = better + worse, min(better, worse)
    ways = tail = 1  # of 0 among n, and of at most k
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values for several comparisons made at once (Holm 1979): the chance of any false one stays below the level."""
    result, worst = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[i]))
        result[i] = worst
    return result


FILE = "predictions.safetensors"  # beside a result: eval/NAME_predictions.safetensors
PredictionArrays = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]  # ids (m,), truth (m,), predicted (draws, m)


def align(a: PredictionArrays, b: PredictionArrays) -> tuple[NDArray[np.int64], Correctness, Correctness]:
    """The ids of the items that both predicted, and the correctness of each on them. RequestError where there is none, or where the
    truths differ."""
    ids, of_a, of_b = np.intersect1d(a[0], b[0], return_indices=True)
    if not len(ids):
        raise RequestError("not one test item is the same")
    if (a[1][of_a] != b[1][of_b]).any():
        raise RequestError("the same test items have different labels: the data was labelled anew between the two")
    rights = [
        (read_predictions[2] == read_predictions[1]).mean(axis=0)[rows]
        for read_predictions, rows in ((a, of_a), (b, of_b))
    ]
    return ids, rights[0], rights[1]


def read_predictions(saved: SavedResult) -> PredictionArrays | None:
    """What is kept of a result's predictions; None where nothing is. DataError for a file that is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if size_of(saved.run, saved.artefact_path(FILE)) is None:
        return None
    try:
        result = load_file(checked(saved.run, saved.artefact_path(FILE)))
        ids, labels, predicted = (result[key] for key in ("ids", "truth", "predicted"))
        assert all(v.dtype == np.int64 for v in (ids, labels, predicted)), "not whole numbers"
        assert ids.ndim == 1, "not samples"
        assert ids.shape == labels.shape == predicted.shape[1:], "not draws of samples"
        assert len(predicted) > 0, "no draw"
    except (OSError, SafetensorError, KeyError, AssertionError) as e:
        why = f"{saved.run / saved.artefact_path(FILE)} cannot be read: {e}"
        raise DataError(why, "measure the run again: sslcli eval NAME run=RUN") from None
    return ids, labels, predicted


def same_data(first: SavedResult, second: SavedResult) -> bool:
    prints = [saved.record.get("fingerprint") for saved in (first, second)]
    return bool(prints[0]) and prints[0] == prints[1]


@dataclass(frozen=True)
class Separation:
    """Whether the better of two results is distinguishable from the other; None where nothing is known about it."""

    distinguishable: bool | None
    why: str
    difference: Difference | None = None

    @property
    def words(self) -> str:
        result = {True: "distinguishable", False: "not distinguishable", None: "of unknown distinction"}
        return f"{result[self.distinguishable]} from the next ({self.why})"


def separation(first: SavedResult | None, second: SavedResult | None, metric: str, seed: int = 0) -> Separation:
    """Of one number (`top1`) of two results. The paired test where both kept what they predicted of the same test samples;
    else their intervals; both of these trainings and not of other seeds."""
    if (
        first is None
        or second is None
        or metric not in first.record["numbers"]
        or metric not in second.record["numbers"]
    ):
        return Separation(None, f"{metric} is not known of both")
    if not same_data(first, second):
        return Separation(None, "measured on different data")
    values = [saved.record["numbers"][metric] for saved in (first, second)]
    if metric == "top1":
        try:
            a, b = read_predictions(first), read_predictions(second)
            if a is not None and b is not None:
                _, rights_a, rights_b = align(a, b)
                result = compare(rights_b, rights_a, seed)  # the difference is of the first, less the second
                why = (
                    f"{result.difference:+.3f}, 95 % {result.low:+.3f} .. {result.high:+.3f}, McNemar p {result.p:.2g}, "
                    f"{result.items:,} test samples"
                )
                return Separation(result.p < 1 - LEVEL, why, result)
        except SslError:
            pass  # their intervals are left
    spans = [saved.record.get("intervals", {}).get(f"{metric}_ci95", (None, None)) for saved in (first, second)]
    return by_intervals(values[0] - values[1], spans, metric)


def by_intervals(difference: float, spans: Sequence[tuple[float | None, float | None]], metric: str) -> Separation:
    """Without pairs: the difference of two numbers with an interval each."""
    ends = [(low, high) for low, high in spans if low is not None and high is not None]
    if len(ends) < 2:
        return Separation(None, f"no interval of {metric} is known")
    half = sum(((high - low) / 2) ** 2 for low, high in ends) ** 0.5
    return Separation(abs(difference) > half, f"{difference:+.3f} ± {half:.3f} by their intervals, unpaired")
