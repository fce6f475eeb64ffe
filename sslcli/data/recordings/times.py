"""The order of the rows of a recording in time, and the regular grid that they are on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from sslcli.config import typecheck
from sslcli.console import plural

TOLERANCE = 0.05  # of a step: deviations of times from a regular grid
RATES = 1.5  # times the shortest step of a recording: a longer one is another rate of sampling
MOST_MISSING = 10  # times as many steps as there are rows: more is no gap
UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@dataclass(frozen=True)
class Grid:
    """step: the median distance of rows in time. places: (n,) int64, the step of each row, from 0. missing: steps without a row.

    Where distances are no multiples of the step, `regular` is false and rows follow each other without gaps."""

    step: float
    places: np.ndarray
    missing: int
    regular: bool


@dataclass(frozen=True)
class StepRange:
    """The shortest and the longest step of the recordings of a data set: in seconds where their times are dates, else in the unit
    of the files."""

    shortest: float
    longest: float
    dates: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Self | None:
        """The inverse of `to_json`; None for None. ValueError for anything else."""
        if content is None:
            return None
        if not isinstance(content, dict) or content.keys() != {"shortest", "longest", "dates"}:
            raise ValueError("step: expected shortest, longest and dates")
        steps = content["shortest"], content["longest"]
        if not typecheck.matches_type(list(steps), list[float]) or not isinstance(content["dates"], bool):
            raise ValueError("step: expected two numbers, and whether times are dates")
        if not 0 < steps[0] <= steps[1] < math.inf:
            raise ValueError("step: expected the shorter step first")
        return cls(float(steps[0]), float(steps[1]), content["dates"])

    def differs(self, other: StepRange) -> bool:
        """Whether recordings are sampled at another rate. Times that are dates are not compared with those that are numbers."""
        if self.dates != other.dates:
            return False
        return self.longest > RATES * other.longest or self.shortest * RATES < other.shortest

    def __str__(self) -> str:
        return step_text([self.shortest, self.longest], self.dates)


@dataclass
class TimeFacts:
    """What the times of the recordings of one or several files say: how many were sorted, how many have no regular step, the number
    of missing steps, and the step of each recording. dates: whether times are dates."""

    unsorted: int = 0
    irregular: int = 0
    missing: int = 0
    steps: list[float] = field(default_factory=list)
    dates: bool = False

    def add(self, other: TimeFacts) -> None:
        self.unsorted += other.unsorted
        self.irregular += other.irregular
        self.missing += other.missing
        self.steps += other.steps
        self.dates |= other.dates

    @property
    def range(self) -> StepRange | None:
        """None where no recording has times."""
        return StepRange(min(self.steps), max(self.steps), self.dates) if self.steps else None

    def notes(self) -> list[str]:
        out = []
        if self.unsorted:
            out.append(f"{plural(self.unsorted, 'recording')} with rows that are not in the order of time: sorted")
        if self.missing:
            out.append(f"{plural(self.missing, 'missing step')} of recordings with a regular step: filled with NaN")
        if self.irregular:
            out.append(
                f"warning: {plural(self.irregular, 'recording')} without a regular step in time: rows are taken as equally spaced"
            )
        if self.steps:
            differ = max(self.steps) > RATES * min(self.steps)
            text = f"time between two steps: {step_text(self.steps, self.dates)}"
            out.append(
                f"warning: {text}: steps count as equally long; resample recordings to one rate" if differ else text
            )
        return out


def sort_by_time(times: np.ndarray) -> tuple[np.ndarray, Grid | None, tuple[int, int] | None]:
    """The order (n,) of rows by time, their grid, None for a single row, and two rows of equal time, if there are such."""
    order = np.argsort(times, kind="stable")
    distances = np.diff(times[order])
    if (distances <= 0).any():
        at = int((distances <= 0).argmax())
        return order, None, (int(order[at]), int(order[at + 1]))
    if not len(distances):
        return order, None, None
    step = float(np.median(distances))
    multiples = np.maximum(np.rint(distances / step), 1)
    regular = bool((np.abs(distances / step - multiples) <= TOLERANCE * multiples).all())
    missing = int(multiples.sum()) - len(distances)
    regular = regular and missing <= MOST_MISSING * len(times)
    if not regular:
        return order, Grid(step, np.arange(len(times)), 0, False), None
    places = np.concatenate([[0], np.cumsum(multiples)]).astype(np.int64)
    return order, Grid(step, places, missing, True), None


def step_text(steps: Sequence[float], dates: bool) -> str:
    """The step, or the range of steps: in seconds, minutes, hours or days where times are dates, else as the file has them."""

    def one(step: float) -> str:
        if not dates:
            return f"{step:g}"
        size, unit = next(((size, unit) for size, unit in UNITS if step >= size), UNITS[-1])
        return f"{step / size:.4g} {unit}{'' if step == size else 's'}"

    low, high = min(steps), max(steps)
    return one(low) if high - low <= 1e-4 * high else f"{one(low)} to {one(high)}"
