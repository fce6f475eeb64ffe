"""The saved ranks of the next items of users, aligned by user. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sslcli.errors import RequestError
from sslcli.evals.metrics.paired import Correctness, Test
from sslcli.evals.pairing.predictions import read_arrays, unreadable

if TYPE_CHECKING:
    from sslcli.runs.results import SavedResult

RANKS = "ranks.safetensors"  # beside a result: eval/NAME_ranks.safetensors
SUFFIXES = {"keep": "", "mask": "_masked"}  # suffix of metrics by what is done with items that the user has had
COMPARED = tuple(f"{name}{suffix}@10" for suffix in SUFFIXES.values() for name in ("hr", "ndcg"))
RANKED = re.compile(r"(?:(\w+)\.)?(hr|ndcg|mrr)(_masked)?@([1-9]\d*)")


@dataclass(frozen=True)
class RankArrays:
    """The rank of the next item of m users. ids, targets: (m,) int64, the numbers of the users among those of the data set, and of
    their next items. ranks: (m,) float64 by `MODEL.CONVENTION`, where the model of the run is ""."""

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    ranks: dict[str, NDArray[np.float64]]

    @property
    def baselines(self) -> list[str]:
        return list(dict.fromkeys(model for key in self.ranks if (model := key.rpartition(".")[0])))

    def scores(self, metric: str) -> Correctness | None:
        """(m,): what each user contributes to a metric such as `ndcg_masked@10` or `markov.hr@5`; None where it is not of ranks."""
        found = RANKED.fullmatch(metric)
        convention = "mask" if found and found[3] else "keep"
        ranks = self.ranks.get(f"{found[1] or ''}.{convention}") if found else None
        return None if found is None or ranks is None else rank_scores(ranks, found[2], int(found[4]))


def rank_scores(ranks: NDArray[np.float64], name: str, k: int) -> Correctness:
    """hr, ndcg or mrr at k of each rank (m,). With one target, NDCG is 1 / log2(1 + rank) up to the cutoff, else 0."""
    hit: Correctness = (ranks <= k).astype(np.float64)
    return hit if name == "hr" else hit / (np.log2(1 + ranks) if name == "ndcg" else ranks)


def rank_test(metric: str) -> Test:
    """The test of a metric of ranks: a hit is right or wrong, as a class is; the other scores are not."""
    return "McNemar" if metric.rpartition(".")[2].startswith("hr") else "permutation"


def read_ranks(saved: SavedResult) -> RankArrays | None:
    """Load the saved ranks of a result; None if there are none. Raises DataError if the file is corrupt."""
    arrays = read_arrays(saved, RANKS, ("ids", "targets"))
    if arrays is None:
        return None
    ids, targets = arrays.pop("ids"), arrays.pop("targets")
    if any(a.shape != ids.shape for a in (targets, *arrays.values())) or any(a.dtype != float for a in arrays.values()):
        raise unreadable(saved, RANKS, "users and ranks differ in shape")
    return RankArrays(ids, targets, {key.removeprefix("rank."): ranks for key, ranks in arrays.items()})


def align_ranks(a: RankArrays, b: RankArrays, metric: str) -> tuple[Correctness, Correctness] | None:
    """The scores of two models for the users that both ranked items for; None where one lacks the metric. Raises RequestError if
    there is no common user, or if the next items of common users differ."""
    first, second = a.scores(metric), b.scores(metric)
    if first is None or second is None:
        return None
    ids, of_a, of_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    if not len(ids):
        raise RequestError("the two results have no test user in common")
    if (a.targets[of_a] != b.targets[of_b]).any():
        raise RequestError("the next items of the same users differ: the data changed between the two results")
    return first[of_a], second[of_b]
