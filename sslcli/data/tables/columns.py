"""The columns of a table in memory, read from files in blocks: numbers as float64, text as indices of distinct strings.

A column is a column of numbers where every cell of every file is a number or missing. Text that appears after blocks of numbers
would lose how those were written (1.0, 007), so the files are then read a second time.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslcli.console import escape, human_bytes, plural
from sslcli.data.files.string_table import StringTable
from sslcli.data.tables.cells import CellFormat, TextCells, canonical, format_number, number_options
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.ids import IdReader
from sslcli.data.tables.parquet import ParquetFile
from sslcli.errors import DataError, MachineError, listing
from sslcli.runtime.resources import free_memory

TableFile = DelimitedFile | ParquetFile
MAX_MARKERS, MARKER = 3, re.compile(r"[A-Za-z]\w*", re.ASCII)  # texts that a hint names as missing
MAX_TEXTS = 200_000  # distinct texts of a column; with more it is no category, unless it is requested


@dataclass
class Column:
    """One column of n rows: `numbers` (n,) float64 with NaN where a value is missing, or `codes` (n,) int32, indices of `texts`, -1
    where missing. Neither where the column has more than MAX_TEXTS distinct texts."""

    name: str
    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    texts: tuple[str, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        """(n,) bool."""
        return np.isnan(self.numbers) if self.numbers is not None else np.asarray(self.codes) < 0

    @property
    def is_empty(self) -> bool:
        """Whether a column of text has no value at all."""
        return self.codes is not None and not (self.codes >= 0).any()

    def as_text(self) -> Column:
        """The same column with numbers as their shortest texts, and texts that are numbers in that form."""
        if self.numbers is None:
            names = dict.fromkeys(canonical(text) for text in self.texts)
            if len(names) == len(self.texts):
                return Column(self.name, codes=self.codes, texts=tuple(names))
            index = {text: i for i, text in enumerate(names)}
            table = np.array([*(index[canonical(text)] for text in self.texts), -1], dtype=np.int32)
            return Column(self.name, codes=table[self.codes], texts=tuple(names))
        values, codes = np.unique(self.numbers, return_inverse=True)
        known = ~np.isnan(values)
        codes = np.where(known[codes], codes, -1).astype(np.int32)
        return Column(self.name, codes=codes, texts=tuple(format_number(v) for v in values[known].tolist()))


@dataclass
class Table:
    """The columns of one or several files below each other. `lines`: the line of each row in its file, from 1; `boundaries`: the
    first row of each file, and the number of rows. `ids`: the identifier of each row, or None."""

    what: str  # the table's name in messages
    columns: dict[str, Column]
    lines: np.ndarray
    boundaries: tuple[int, ...]
    markers: Mapping[str, Counter[str]]  # of each column: how often each marker of a missing value occurs
    cells: CellFormat = field(default_factory=CellFormat)  # how its numbers are written
    ids: StringTable | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def rows_with_text(self, name: str, at_most: int = 3) -> str:
        """The first cells of a column that are text, for messages."""
        if self.columns[name].codes is None and self.columns[name].numbers is None:
            return f"more than {MAX_TEXTS:,} different texts"
        column = self.columns[name].as_text()
        assert column.codes is not None
        where = [
            i for i, code in enumerate(column.codes.tolist()) if code >= 0 and not self.cells.plain(column.texts[code])
        ]
        return listing(f"{escape(column.texts[column.codes[i]])!r} in line {self.lines[i]:,}" for i in where[:at_most])

    def hint_for_text(self, columns: Sequence[Column]) -> str:
        """How to read the text of columns whose cells should be numbers."""
        texts = list(dict.fromkeys(t for column in columns for t in column.texts if not self.cells.plain(t)))
        correct = "correct these cells, or leave them empty"
        if not os.path.isfile(self.what) or not texts:
            return correct
        data = f"dataset=table dataset.path={shlex.quote(self.what)}"
        if (options := number_options(texts, self.cells)) is not None:
            return f"{data} {options} reads these cells as numbers"
        if len(texts) > MAX_MARKERS or not all(MARKER.fullmatch(text) for text in texts):
            return correct
        return f"{correct}; {data} 'dataset.missing=[{','.join(texts)}]' reads them as missing"


def read_tables(
    files: Sequence[TableFile],
    cells: CellFormat,
    text: Collection[str] = (),
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
    optional: Collection[str] = (),
    id: str | None = None,
) -> Table:
    """Read the columns of files with the same columns, in any order.

    `text`: columns that are read as text; `skip`: columns that are not read; `only`: those that are. `optional`: columns that a
    file need not have; their values are then missing. `id`: the column of identifiers, which is none of the others. DataError where
    another column is missing in one of the files, and for identifiers that are missing or repeated."""
    what = listing((file.what for file in files), 2)
    names = _common_names(files, skip if id is None else {*skip, id}, only, optional)
    forced = set(text)
    while True:
        readers = {name: _ColumnReader(name, cells, name in text, name in forced) for name in names}
        lines: list[np.ndarray] = []
        boundaries, rows, read, budget = [0], 0, 0, free_memory()
        ids, named = None if id is None else IdReader(id), list[str]()
        for file in files:
            if ids is not None:
                ids.begin(file)
            for numbers, block in file.blocks(names if id is None else [*names, id]):
                if ids is not None:
                    named += ids.read(block[ids.name], numbers)
                for name, reader in readers.items():
                    reader.add(block[name] if name in block else [""] * len(numbers))
                lines.append(numbers)
                rows += len(numbers)
                read += len(numbers) * len(names) * 8
                if read > budget:
                    raise MachineError(
                        f"{what} needs more than {human_bytes(read)} of memory after {plural(rows, 'row')}; "
                        f"{human_bytes(budget)} are available",
                        "use fewer rows, or leave columns out: dataset.drop=[...]",
                    )
            boundaries.append(rows)
        late = {name for name, reader in readers.items() if reader.late}
        if not late:
            break
        forced |= late
    columns = {name: reader.column() for name, reader in readers.items()}
    all_lines = np.concatenate(lines) if lines else np.zeros(0, dtype=np.int64)
    markers = {name: r.markers for name, r in readers.items()}
    rows_named = None if id is None else StringTable(named)
    return Table(what, columns, all_lines, tuple(boundaries), markers, cells, rows_named)


def _common_names(
    files: Sequence[TableFile], skip: Collection[str], only: Collection[str] | None, optional: Collection[str]
) -> list[str]:
    first = files[0]
    named = dict.fromkeys([*first.columns, *(n for file in files for n in file.columns if n in optional)])
    names = [n for n in named if n not in skip and (only is None or n in only)]
    for file in files[1:]:
        if absent := [n for n in names if n not in file.columns and n not in optional]:
            raise DataError(
                f"{file.what} has no column {listing(map(escape, absent), 6)}, which {first.what} has",
                f"its columns: {listing(map(escape, file.columns), 12)}",
            )
    return names


class _Codes(dict[str, int]):
    """Text -> index of a distinct text; new texts are added. Markers of missing values are -1."""

    def __init__(self, markers: Iterable[str], limit: int | None):
        super().__init__(dict.fromkeys(markers, -1))
        self.texts: list[str] = []
        self.limit = limit

    def __missing__(self, cell: str) -> int:
        text = cell.strip()
        if text != cell:
            self[cell] = self[text]
            return self[cell]
        self[text] = len(self.texts)
        self.texts.append(text)
        return self[text]

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.texts) > self.limit


class _ColumnReader:
    """Collects one column from blocks of cells. `late`: whether text followed blocks of numbers."""

    def __init__(self, name: str, cells: CellFormat, requested: bool, text: bool):
        self.name, self.cells, self.late = name, cells, False
        self.codes = _Codes(cells.markers, None if requested else MAX_TEXTS)
        self.text, self.any_number = text, False
        self.blocks: list[np.ndarray] = []
        self.markers: Counter[str] = Counter()

    def add(self, cells: Sequence[str] | np.ndarray) -> None:
        if self.late or self.codes.full:
            return
        if isinstance(cells, np.ndarray):
            if not self.text:
                self._add_numbers(cells)
                return
            cells = ["" if np.isnan(v) else format_number(v) for v in cells.tolist()]
        elif not self.text:
            numbers = None if isinstance(cells, TextCells) else self.cells.numbers(cells)
            if numbers is not None:
                self._add_numbers(numbers)
                self._count_markers(cells, np.isnan(numbers))
                return
            if self.any_number:
                self.late = True
                return
            self._become_text()
        block = np.fromiter(map(self.codes.__getitem__, cells), np.int32, len(cells))
        self._count_markers(cells, block < 0)
        self.blocks.append(block)

    def _add_numbers(self, values: np.ndarray) -> None:
        self.any_number = self.any_number or not bool(np.isnan(values).all())
        self.blocks.append(values)

    def _become_text(self) -> None:
        self.text = True
        self.blocks = [np.full(len(block), -1, np.int32) for block in self.blocks]  # nothing but missing so far

    def _count_markers(self, cells: Sequence[str], missing: np.ndarray) -> None:
        if missing.any():
            self.markers.update(cells[i].strip() for i in np.flatnonzero(missing).tolist())

    def column(self) -> Column:
        if self.codes.full:
            return Column(self.name)
        if self.text:
            codes = np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.int32)
            self.blocks = []
            return Column(self.name, codes=codes, texts=tuple(self.codes.texts))
        numbers = np.concatenate(self.blocks) if self.blocks else np.zeros(0)
        self.blocks = []
        return Column(self.name, numbers=numbers)


def table_from_rows(rows: Sequence[Mapping[str, Any]], what: str, cells: CellFormat, text: Collection[str]) -> Table:
    """A table of rows as dictionaries: numbers, text, None. Rows need not name the same columns."""
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return table_from_columns(columns, len(rows), what, cells, text)


def table_from_columns(
    columns: Mapping[str, Sequence[Any]], n: int, what: str, cells: CellFormat, text: Collection[str]
) -> Table:
    """A table of columns of numbers, text and None. DataError where their lengths differ from `n`."""
    readers = {}
    for name, values in columns.items():
        if len(values) != n:
            raise DataError(f"{what}: column {escape(str(name))} has {plural(len(values), 'value')}; expected {n:,}")
        readers[str(name)] = reader = _ColumnReader(str(name), cells, True, str(name) in text)
        reader.add([_cell(value) for value in values])
    done = {name: reader.column() for name, reader in readers.items()}
    return Table(what, done, np.arange(1, n + 1), (0, n), {name: r.markers for name, r in readers.items()}, cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else format_number(float(value)) if np.isfinite(value) else str(value)
    return str(value)
