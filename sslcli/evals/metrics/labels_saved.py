"""Labels saved at equal accuracy: how many labels a baseline needs to reach what another model reaches with n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]  # labels, accuracy


@dataclass(frozen=True)
class Needed:
    """A number of labels. `relation` says how to read it: "=", ">" (not even with so many), "<=" (with so many, or fewer)."""

    labels: float
    relation: str


def needed(curve: Sequence[Point], accuracy: float) -> Needed:
    """The labels with which a curve first reaches an accuracy.

    Between two measured points the accuracy is taken to be linear in the logarithm of the number of labels. Nothing is
    said beyond the points: a curve that never gets there needs more (">") than its last point has, one that starts
    above it as many as its first at most ("<="). `curve`: (labels, accuracy) with rising labels, one point or more.
    """
    assert curve, "a curve has a point"
    assert all(a[0] < b[0] for a, b in pairwise(curve)), curve
    if curve[0][1] >= accuracy:
        return Needed(curve[0][0], "=" if curve[0][1] == accuracy else "<=")
    for (n, low), (m, high) in pairwise(curve):
        if high >= accuracy:
            share = (accuracy - low) / (high - low)
            return Needed(n * (m / n) ** share, "=")
    return Needed(curve[-1][0], ">")


def least(needs: dict[str, Needed]) -> str:
    """Which baseline needs fewest labels: the best of them. Of equal numbers, one that gets there is better."""
    return min(needs, key=lambda name: (needs[name].labels, needs[name].relation == ">", name))
