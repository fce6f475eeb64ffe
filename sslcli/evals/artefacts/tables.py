"""Files of rows for people and spreadsheets, and what reports show of artefacts beside their drawings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.data.files.csv_text import written
from sslcli.runs import Record
from sslcli.runs.files import replace_file
from sslcli.views.preview.clip_sheet import ClipSheet


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


def clips_of(artefacts: Mapping[str, Any]) -> dict[str, ClipSheet]:
    """The samples of drawings that reports play: `samples.zip` of `samples.png`."""
    found = {file: drawing.clips() for file, drawing in artefacts.items() if hasattr(drawing, "clips")}
    return {f"{file.removesuffix('.png')}.zip": clips for file, clips in found.items() if clips is not None}
