"""The order of the rows of a recording in time, and the regular grid that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.05  # of a step: deviations of times from a regular grid
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
        return f"{step / size:g} {unit}{'' if step == size else 's'}"

    low, high = min(steps), max(steps)
    return one(low) if high - low <= 1e-6 * high else f"{one(low)} to {one(high)}"
