"""Wide tables: a row for each series of one channel, with a column for each step.

The `.tsv` files of the UCR archive have no header, and the label in the first column.
"""

from __future__ import annotations

import os

import numpy as np

from sslcli.console import escape
from sslcli.data.recordings.recordings import LABELS, Columns, Recordings, find_column
from sslcli.data.recordings.table import read_columns, require_columns
from sslcli.data.tables.columns import TableFile
from sslcli.errors import DataError

IDS = ("id", "series", "sample", "case", "split")


def read_wide(file: TableFile, header: bool, wish: Columns, notes: list[str]) -> Recordings:
    """The series of a table; steps at the end of a row without a value are not part of it."""
    columns = [name for name in file.columns if name not in wish.drop]
    require_columns(wish.drop, file.columns, "drop", file.what)
    label = _label(file, columns, header, wish, notes)
    group = wish.named_group and find_column(wish.named_group, (), columns, "group", file.what)
    texts = [name for name in (label, group) if name]
    steps = [name for name in columns if name not in texts]
    if not steps:
        raise DataError(f"{file.what} has no columns of values beside {', '.join(map(escape, texts))}")
    if not header:
        notes.append(
            f"{file.what} has no header: its columns are steps" + (f", and {label} the label" if label else "")
        )
    data = read_columns(file, steps, texts)
    values = np.stack([data[name] for name in steps], axis=1)
    found = Recordings({"train": [_trimmed(row) for row in values]})
    if label:
        found.y["train"] = data[label]
    if group:
        found.groups = data[group].tolist()
    return found


def _label(file: TableFile, columns: list[str], header: bool, wish: Columns, notes: list[str]) -> str | None:
    if wish.label == "none":
        return None
    if header:
        return find_column(wish.named_label, LABELS, columns, "label", file.what)
    if wish.named_label in ("first", "last"):
        return columns[0 if wish.named_label == "first" else -1]
    if wish.named_label is not None:
        raise DataError(f"{file.what} has no header: dataset.label is first, last or none")
    name = os.path.basename(file.path).lower()
    if ".tsv" in name or "_train" in name or "_test" in name:
        return columns[0]
    notes.append("no label: dataset.label=first takes the first column, as in files of the UCR archive")
    return None


def _trimmed(row: np.ndarray) -> np.ndarray:
    """(1, T) without the missing values at the end; at least one step."""
    known = np.flatnonzero(~np.isnan(row))
    return row[None, : int(known[-1]) + 1 if len(known) else len(row)]
