"""Choose a hyper-parameter from a grid that continues, in both directions, while its edge is best. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sslcli.console import warn

Score = tuple[float, ...]  # larger is better; later entries decide between equal ones


@dataclass(frozen=True)
class Grid:
    """`values`, ascending: all that may be tried. The search starts with values[first] .. values[last]."""

    values: tuple[float, ...]
    first: int
    last: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Grid:
        """A grid that a user gave: these values and no others."""
        ascending = tuple(sorted(set(values)))
        return cls(ascending, 0, len(ascending) - 1)

    @property
    def start(self) -> tuple[float, ...]:
        return self.values[self.first : self.last + 1]

    @property
    def closed(self) -> bool:
        """Whether nothing lies beyond what is tried first."""
        return self.start == self.values


@dataclass(frozen=True)
class Choice:
    """The best value of a grid. `edge`: "lowest" or "highest" where no value beyond it may be tried, else ""."""

    value: float
    how: str = "given"
    tried: tuple[float, ...] = ()
    edge: str = ""


def search(grid: Grid, score: Callable[[float], Score], how: str, enough: Callable[[list[Score]], bool]) -> Choice:
    """The value with the highest score, the first of equal ones; tried from low to high, then beyond while the edge is best.

    `enough(scores so far)` ends the way up: higher values would not be better. A value beyond the edge replaces it only
    where its score is higher, so scores that no longer change end the search. Below the lowest value the search continues only
    while the first entry of the score, an accuracy, is strictly the highest there: a classifier that is penalized more is less
    confident, and where it is wrong that alone lowers its log loss, down to weights of zero.
    """
    scores: dict[float, Score] = {}

    def attempt(place: int) -> None:
        scores[grid.values[place]] = score(grid.values[place])

    def best() -> float:
        return max(scores, key=lambda value: scores[value])  # `max` keeps the one of equal ones that was tried first

    high, ended = grid.first - 1, False
    while not ended and high + 1 < len(grid.values) and (high < grid.last or best() == grid.values[high]):
        high += 1
        attempt(high)
        ended = enough(list(scores.values()))

    def leads(place: int) -> bool:
        value = grid.values[place]
        return best() == value and all(scores[value][0] > s[0] for v, s in scores.items() if v != value)

    low = grid.first
    while low > 0 and leads(low):
        low -= 1
        attempt(low)
    value = best()
    ends = {grid.values[0]: "lowest", grid.values[-1]: "highest"} if len(grid.values) > 1 else {}
    return Choice(value, how, tuple(sorted(scores)), ends.get(value, ""))


def choice_notes(choices: Sequence[Choice], grid: Grid, what: str, key: str) -> list[str]:
    """Notes on the choices of several draws, with a warning where a better value may lie beyond what may be tried. `what` is
    chosen: "C of the probe"; `key` is the user's key for the grid."""
    beyond = sorted({v for c in choices for v in c.tried} - set(grid.start))
    notes = []
    if beyond:
        values = ", ".join(f"{v:g}" for v in beyond)
        notes.append(f"{what}: an edge of the grid was best, so it was continued to {values}")
    edges = sorted({(c.value, c.edge) for c in choices if c.edge})
    why = f"{key}=null continues the grid" if grid.closed else "the grid ends there"
    for value, edge in edges:
        notes.append(f"{what} = {value:g} was best and is the {edge} that may be tried: {why}")
        if grid.closed or edge == "highest":  # nothing is lost below the lowest: it ends where nothing changes
            warn(notes[-1])
    return notes
