"""Ranks of target items among all items, and metrics of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sslcli.evals.metrics.interval import SUFFIX, Interval, Z, share_interval
from sslcli.evals.pairing.ranks import SUFFIXES


def target_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """(B,) float64: the rank of each target (B,) int64 among the scores (B, I) of all items, 1 for the largest. Of equal scores
    half are counted as better, so that a model without any preference has the rank of a random order on average. Infinite for a
    target that is left out."""
    own = scores.gather(1, target[:, None])
    above = (scores > own).sum(dim=1)
    equal = (scores == own).sum(dim=1) - 1
    return (1 + above.double() + equal.double() / 2).masked_fill(own.isneginf()[:, 0], math.inf)


def without_seen(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """A copy of the scores (B, I), -inf at the items (n,) of the rows (n,)."""
    out = scores.clone()
    out[rows, items] = -math.inf
    return out


def metrics(ranks: Tensor, cutoffs: Sequence[int], seen: str) -> tuple[dict[str, float], dict[str, Interval]]:
    """Hit rate, NDCG and reciprocal rank up to each cutoff, the means over users (m,), with 95 % intervals over users.

    With a single target, NDCG is 1 / log2(1 + rank) up to the cutoff, else 0."""
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for k in cutoffs:
        hit = (ranks <= k).double()
        each = {"hr": hit, "ndcg": hit / (1 + ranks).log2(), "mrr": hit / ranks}
        for name, x in each.items():
            key = f"{name}{SUFFIXES[seen]}@{k}"
            values[key] = mean = float(x.mean())
            half = Z * float(x.std()) / math.sqrt(len(x)) if len(x) > 1 else math.inf
            normal = (max(0.0, mean - half), min(1.0, mean + half))
            intervals[key + SUFFIX] = share_interval(mean, len(x)) if name == "hr" else normal
    return values, intervals
