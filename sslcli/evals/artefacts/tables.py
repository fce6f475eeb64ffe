"""Files of rows for people and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.disk import replace_file


@dataclass
class Csv:
    """A header and rows, to a CSV file."""

    header: Sequence[str]
    rows: Iterable[Sequence[Any]] = field(repr=False)
    caption: str = ""

    def save(self, path: Path) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(self.rows)
        replace_file(path, text.getvalue())
