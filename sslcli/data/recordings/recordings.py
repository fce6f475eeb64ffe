"""Recordings of several lengths, their labels, and how a user says where they are in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, format_override
from sslcli.data.recordings.times import TimeFacts
from sslcli.errors import DataError, RequestError, listing, nearest

LABELS = ("label", "class", "y", "target")


@dataclass
class Recordings:
    """parts: by split, recordings (C, T) float32, NaN where a value is missing. y: labels or values of a split, one for each
    recording. groups: of the recordings of train. channels: their names, where the file has any. facts: for `details`. names: of
    the recordings of a split, where the files have any. times: of those with a column of times."""

    parts: dict[str, list[np.ndarray] | np.ndarray]
    y: dict[str, np.ndarray] = field(default_factory=dict)
    groups: list[str] | None = None
    channels: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    times: TimeFacts = field(default_factory=TimeFacts)

    def take_step_labels(self, name: str, what: str) -> dict[str, list[Tensor]]:
        """Remove the channel `name`, which says of each step whether it is anomalous, and return it for each split: 0, 1, or -1
        where it is missing. RequestError where there is no such channel, DataError for other numbers."""
        at = self.channels.index(str(find_column(name, (), self.channels, "step_label", what)))
        found = {}
        for part, recordings in self.parts.items():
            rows = [np.nan_to_num(r[at], nan=-1.0) for r in recordings]
            if not all(np.isin(row, (-1, 0, 1)).all() for row in rows):
                raise DataError(f"{what}: the column {escape(name)} holds other numbers than 0 and 1")
            found[part] = [torch.from_numpy(row.astype(np.int64)) for row in rows]
            self.parts[part] = [np.delete(r, at, axis=0) for r in recordings]
        self.channels = self.channels[:at] + self.channels[at + 1 :]
        if not self.channels:
            raise DataError(f"{what} has no columns of values beside {escape(name)}")
        return found


@dataclass(frozen=True)
class Columns:
    """The keys of `dataset` that name columns of a table.

    label, group: as in `series`. form: auto, long or wide. id, time: columns of a long table, None: found by their names. drop:
    columns that are not read. channels: those of values, in this order; all others where it is empty. test: the file of the test
    split, auto: X_TEST beside X_TRAIN, or none."""

    label: str | None = "auto"
    group: str | None = "recording"
    form: str = "auto"
    id: str | None = None
    time: str | None = None
    drop: tuple[str, ...] = ()
    test: str = "auto"
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.form not in ("auto", "long", "wide"):
            raise RequestError(
                f"dataset.format: expected auto, long or wide, got {escape(self.form)}", "dataset.format=long"
            )

    @property
    def named_label(self) -> str | None:
        """The column that the user named; None for auto and none."""
        return None if self.label in ("auto", "none", None) else str(self.label)

    @property
    def named_group(self) -> str | None:
        return None if self.group in ("auto", "recording", "none", None) else str(self.group)


def find_column(
    wish: str | None,
    names: Sequence[str],
    columns: Sequence[str],
    key: str,
    what: str,
    taken: Sequence[str | None] = (),
) -> str | None:
    """The column that the user named, else the first of `names` that the table has. RequestError for one that it has not."""
    if wish is not None:
        if wish in columns:
            return wish
        close = nearest(wish, columns)
        raise RequestError(
            f"dataset.{key}={escape(wish)} is not a column of {what}",
            f"did you mean {format_override(f'dataset.{key}', close)} ?"
            if close
            else f"columns: {listing(map(escape, columns), 8)}",
        )
    lower = {column.strip().lower(): column for column in reversed(columns) if column not in taken}
    return next((lower[name] for name in names if name in lower), None)


def one_value(values: np.ndarray) -> str | None:
    """The value that all entries (n,) have; None where they differ."""
    return str(values[0]) if bool((values == values[0]).all()) else None


def stack_channels(
    recordings: Sequence[Mapping[str, np.ndarray]], what: str, notes: list[str]
) -> tuple[list[np.ndarray], list[str]]:
    """(C, T) arrays of recordings whose channels have names, in the order of the first ones. A channel that some recordings lack is
    missing there. DataError where there is none."""
    names = list(dict.fromkeys(name for recording in recordings for name in recording))
    if not names:
        raise DataError(f"{what} has no columns of values")
    for name in names:
        lacking = sum(name not in recording for recording in recordings)
        if lacking:
            notes.append(
                f"warning: the channel {escape(name)} is absent from {lacking:,} of {len(recordings):,} recordings: missing there"
            )
    out = []
    for recording in recordings:
        steps = len(next(iter(recording.values())))
        rows = [recording.get(name) for name in names]
        out.append(np.stack([np.full(steps, np.nan, np.float32) if row is None else row for row in rows]))
    return out, names
