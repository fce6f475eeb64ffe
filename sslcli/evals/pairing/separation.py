"""Whether the better of two results is distinguishable from the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sslcli.errors import SslError
from sslcli.evals.metrics.paired import Difference, compare
from sslcli.evals.pairing.predictions import align, read_predictions, same_data
from sslcli.evals.pairing.ranks import RANKED, align_ranks, rank_test, read_ranks

if TYPE_CHECKING:
    from sslcli.runs.results import SavedResult

ALPHA = 0.05  # of tests: a smaller p-value distinguishes two models


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

    The criterion is a paired test at the 5 % level if both saved their predictions of the same test samples, or their ranks of the
    next items of the same users: McNemar's exact test of a share, else the permutation test of a mean. Otherwise it is that the
    difference exceeds the half width that their confidence intervals give it. The bootstrap interval of the difference is
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
    try:
        result = _paired(first, second, metric, seed)
    except SslError:
        result = None  # fall back to the intervals
    if result is not None:
        clear = result.p < ALPHA
        why = (
            f"decided by {result.test} p {result.p:.2g}, {'' if clear else 'not '}below {ALPHA:g}; difference "
            f"{result.difference:+.3f}, bootstrap 95 % interval {result.low:+.3f} .. {result.high:+.3f}, "
            f"{result.items:,} test {'samples' if metric == 'top1' else 'users'}"
        )
        return Separation(clear, why, result)
    spans = [saved.record.get("intervals", {}).get(f"{metric}_ci95", (None, None)) for saved in (first, second)]
    return by_intervals(values[0] - values[1], spans, metric)


def _paired(first: SavedResult, second: SavedResult, metric: str, seed: int) -> Difference | None:
    """First minus second, on what both predicted; None where one of them saved nothing to compare. SslError."""
    if metric == "top1":
        a, b = read_predictions(first), read_predictions(second)
        if a is None or b is None:
            return None
        _, rights_a, rights_b = align(a, b)
        return compare(rights_b, rights_a, seed)
    if RANKED.fullmatch(metric) is None:
        return None
    of_first, of_second = read_ranks(first), read_ranks(second)
    scores = None if of_first is None or of_second is None else align_ranks(of_second, of_first, metric)
    return None if scores is None else compare(*scores, seed, test=rank_test(metric))


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
