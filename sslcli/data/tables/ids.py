"""The identifiers in a column of a table, which name its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.tables.cells import MARKERS, format_number
from sslcli.data.tables.parquet import ParquetFile
from sslcli.errors import DataError

NONE = "none"  # no identifiers, also where an encoder was trained with some
ID_NAME = re.compile(r"(?:.*[^A-Za-z])?(?i:id|uuid|guid)|.*[a-z](?:Id|ID)", re.DOTALL)


class IdReader:
    """Reads the identifiers in the column `name` of files, one file after another.

    DataError, with the lines, for a row without one and for two rows of a file with the same."""

    def __init__(self, name: str):
        self.name, self.what, self.word = name, "", "line"
        self._lines: dict[str, int] = {}  # of the file that is read: identifier -> line

    def begin(self, file: Any) -> None:
        """Begin a table, whose identifiers are read as they are written."""
        self.what, self.word = file.what, "row" if isinstance(file, ParquetFile) else "line"
        if isinstance(file, ParquetFile):
            file.exact = (self.name,)
        self._lines.clear()

    def read(self, cells: Iterable[Any], lines: np.ndarray) -> list[str]:
        """The identifiers of the next rows: of their cells, at `lines` (n,)."""
        found = []
        for cell, line in zip(cells, lines.tolist(), strict=True):
            text = id_text(cell)
            if text in MARKERS:
                raise DataError(
                    f"{self.what}, {self.word} {line:,}: no identifier in the column {escape(self.name)}: "
                    f"{escape(text) or 'the cell is empty'}",
                    f"give each row one; dataset.id={NONE} reads the file without identifiers",
                )
            before = self._lines.setdefault(text, line)
            if before != line:
                raise DataError(
                    f"{self.what}, {self.word}s {before:,} and {line:,}: the identifier {escape(text)} occurs twice in the "
                    f"column {escape(self.name)}",
                    f"leave one of the rows out; dataset.id={NONE} reads the file without identifiers",
                )
            found.append(text)
        return found


def id_text(value: Any) -> str:
    """An identifier as text: whole numbers without a fraction, text without the white space around it."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return format_number(float(value))
    return str(value).strip().encode("utf-8", "backslashreplace").decode()


def describe_ids(id: str, ids: Sequence[str], notes: list[str]) -> None:
    """Add a note on the identifiers of all rows, and a warning where some, which differ within each file, repeat across files."""
    notes.append(f"rows are named by the column {escape(id)}")
    if repeated := len(ids) - len(set(ids)):
        notes.append(
            f"warning: {plural(repeated, 'identifier')} of {escape(id)} in more than one file: rows of different files with the "
            "same one are different samples"
        )


def is_id_name(name: str) -> bool:
    """Whether a column is named as identifiers are: id, customer_id, customerId, uuid."""
    return ID_NAME.fullmatch(name.strip()) is not None
