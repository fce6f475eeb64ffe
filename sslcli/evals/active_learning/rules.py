"""The rules by name. Each is a function of a `Pool`, the number n of picks, and a seed; with a smaller n it returns the first of
the same picks."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.evals.active_learning.kcenter import kcenter
from sslcli.evals.active_learning.margin import uncertain
from sslcli.evals.active_learning.names import RULE_NAMES
from sslcli.evals.active_learning.pool import Pick, Pool
from sslcli.evals.active_learning.probcover import cover
from sslcli.evals.active_learning.typiclust import typical
from sslcli.rng import derive, order


def random(pool: Pool, n: int, seed: int) -> list[Pick]:
    """n picks in random order."""
    shuffled = order(derive(seed, "random picks"), 0, len(pool))
    free = shuffled[pool.labels[shuffled] < 0][:n]
    return [Pick(i, f"random, seed {seed}") for i in free.tolist()]


Rule = Callable[[Pool, int, int], list[Pick]]
RULES: dict[str, Rule] = {
    "typical": typical,
    "cover": cover,
    "kcenter": kcenter,
    "uncertain": uncertain,
    "random": random,
}
assert RULES.keys() == RULE_NAMES.keys()
