"""Files of rows for people and spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.runs import Record
from sslcli.runs.files import replace_file

# How a formula begins, in one spreadsheet or another (the wide forms too); tab and return, which some skip, are escaped.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass
class Csv:
    """A header and rows, to a CSV file."""

    header: Sequence[str]
    rows: Iterable[Sequence[Any]] = field(repr=False)
    caption: str = ""

    def save(self, path: Path) -> None:
        replace_file(path.parent, path.name, written(self.header, self.rows))

    def table(self) -> Record | None:
        """What a report shows: `columns` and `rows`, of which a cell is text, a number, or `words` with their weights. None for a
        file that is read elsewhere."""
        return None


@dataclass
class Table(Csv):
    """A CSV file that reports show as well."""

    def table(self) -> Record | None:
        return {"columns": list(self.header), "rows": [list(row) for row in self.rows]}


def tables_of(artefacts: Mapping[str, Any]) -> Record:
    """By file name, what reports show of the artefacts as tables."""
    tables = {file: a.table() for file, a in artefacts.items() if hasattr(a, "table")}
    return {file: table for file, table in tables.items() if table is not None}


def written(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file. Every CSV file of the program is written by this function."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return text.getvalue()


def cell(value: object) -> Any:
    """What a spreadsheet shows and does not execute: text that would be a formula gets an apostrophe in front, control characters
    are escaped. Numbers stay numbers."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(value))
    return f"'{text}" if text.startswith(FORMULA) and not is_number(text) else text


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
