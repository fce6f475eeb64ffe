"""The times of events in a table, read in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.recordings.table import parse_times
from sslcli.data.tables.cells import CellFormat
from sslcli.errors import DataError

WITHOUT_TIMES = "dataset.time=none takes the events of a user in the order of the file"


class Times:
    """The column `name` of the file `what`, of numbers or of dates. `line`: what the file calls one of its lines."""

    def __init__(self, name: str, what: str, form: CellFormat, line: str):
        self.name, self.what, self.form, self.line = name, what, form, line
        self.missing: list[np.ndarray] = []  # lines of events without a time
        self.form_before: str | None = None  # of the times of earlier blocks: numbers or dates

    def read(self, cells: Any, lines: np.ndarray) -> np.ndarray:
        """The times of a block of cells, which are at `lines`: (n,) float64, NaN where there is none.

        DataError for what is no time, and for dates after a block of numbers or the reverse, which have no common order."""
        times, form = self._parse(cells, lines)
        absent = np.isnan(times)
        self.missing.append(lines[absent])
        if not absent.all():
            if self.form_before not in (None, form):
                raise DataError(
                    f"{self.what}, {self.line} {int(lines[~absent][0]):,}: the times are {form} from here on, and "
                    f"{self.form_before} before ({escape(self.name)})",
                    f"write all times in the same form; {WITHOUT_TIMES}",
                )
            self.form_before = form
        return times

    def _parse(self, cells: Any, lines: np.ndarray) -> tuple[np.ndarray, str]:
        if isinstance(cells, np.ndarray):
            return cells.astype(np.float64), "numbers"
        if (numbers := self.form.numbers(cells)) is not None and not np.isinf(numbers).any():
            return numbers, "numbers"
        texts = np.array([cell.strip() for cell in cells])
        missing = np.isin(texts, list(self.form.markers))
        out = np.full(len(texts), np.nan)
        if not missing.all():
            out[~missing] = parse_times(texts[~missing], lines[~missing], self.name, self.what, WITHOUT_TIMES)
        return out, "dates"

    def require_all(self, events: int) -> None:
        """DataError where some of the events have no time."""
        lines = np.concatenate([np.zeros(0, np.int64), *self.missing])
        if len(lines):
            first = f"{self.what}, {self.line} {int(lines[0]):,}: the event has no time"
            more = f", the first of {len(lines):,} of {plural(events, 'event')}" if len(lines) > 1 else ""
            raise DataError(first + more, f"remove such events, or {WITHOUT_TIMES}")
