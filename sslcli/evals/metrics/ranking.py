"""The direction of each metric, ranks of candidates, and rank correlation. Imports no torch.

`METRICS` is the one table of directions: what `sslcli select` ranks by, and `sslcli runs best` sorts by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A label-free metric. `best` is "larger", "smaller", or the target value."""

    best: str | float
    says: str


# What each was proposed for: rankme, alpha_req, lidar and clid to predict accuracy by themselves. alignment is perfect for a
# collapsed backbone, uniformity and spread for noise, learnability for one that knows two groups.
METRICS = {
    "rankme": Metric("larger", "directions that the features fill"),
    "alpha_req": Metric(1.0, "decay of the covariance's eigenvalues; near 1 is best"),
    "lidar": Metric("larger", "directions that tell samples apart despite their views"),
    "clid": Metric("larger", "learnability + intrinsic_dim, each standardised over the candidates"),
    "learnability": Metric("larger", "accuracy of a neighbour on k-means clusters"),
    "intrinsic_dim": Metric("larger", "dimension of the surface that the features lie on"),
    "alignment": Metric("smaller", "distance of two views of a sample"),
    "uniformity": Metric("smaller", "how evenly the features cover the sphere"),
    "spread": Metric("larger", "0 is collapse, 1 is isotropic"),
}
# Metrics with labels, and of training, that are better when smaller.
SMALLER = ("loss", "mse", "mae", "fpr95", "ece", "ece_uncalibrated", "brier", "nll")
# Half of CLID, and what agreed best with the probe in each of our sets of runs (docs/results/select.md).
DEFAULT = "learnability"


def goodness(name: str, value: float) -> float:
    """A number that is larger where `value` is better; -inf where there is none (nan) or it is not finite.

    `name` may have parts before and after: `quality.alpha_req`, `probe.untrained.top1_std`, `labels.rmse@100`.
    """
    if not math.isfinite(value):
        return -math.inf
    short = name.replace("/", ".").rpartition(".")[2].partition("@")[0]
    best = METRICS[short].best if short in METRICS else "smaller" if short.endswith(SMALLER) else "larger"
    if isinstance(best, float):
        return -abs(value - best)
    return -value if best == "smaller" else value


def ranks(scores: Sequence[float]) -> list[float]:
    """1 for the largest; equal ones share the mean of their places."""
    return [1 + sum(o > s for o in scores) + (sum(o == s for o in scores) - 1) / 2 for s in scores]


def clid(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """CLID of each candidate: its learnability and its intrinsic dimension, added (Lu et al., as `geometry.learnability`). How the
    paper brings both to one scale was not to be found out: here each is standardized over the candidates that have it. nan for one
    that lacks either."""
    total = [0.0] * len(rows)
    for name in ("learnability", "intrinsic_dim"):
        known = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        mean = sum(known) / len(known) if known else 0.0
        scale = math.sqrt(sum((v - mean) ** 2 for v in known) / len(known)) if known else 0.0
        for i, row in enumerate(rows):
            total[i] += (row.get(name, math.nan) - mean) / (scale or 1.0)
    return total


def rank_all(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The rank of each candidate by each metric that is in all rows."""
    rank_rows: list[dict[str, float]] = [{} for _ in rows]
    for name in METRICS:
        if all(name in row for row in rows):
            places = ranks([goodness(name, row[name]) for row in rows])
            for row_ranks, place in zip(rank_rows, places, strict=True):
                row_ranks[name] = place
    return rank_rows


def agreement(scores: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
    """Spearman's and Kendall's (tau-b) rank correlation, with their `n`; nan where there are fewer than two, or one of the
    lists has but one value."""
    assert len(scores) == len(targets), (len(scores), len(targets))
    if len(set(scores)) < 2 or len(set(targets)) < 2:
        return {"spearman": math.nan, "kendall": math.nan, "n": len(scores)}
    from scipy.stats import kendalltau, spearmanr

    order = [sum(o < s for o in scores) for s in scores]  # finite, whatever the scores
    rho, tau = spearmanr(order, targets).statistic, kendalltau(order, targets).statistic
    return {"spearman": float(rho), "kendall": float(tau), "n": len(scores)}
