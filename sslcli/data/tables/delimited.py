"""Read text tables (CSV, TSV) in blocks: any common delimiter, line ends and quotes, UTF-8 or UTF-16, also compressed.

A row with more or fewer cells than the header, and bytes that are not UTF-8, are errors with their line.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, Literal

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.folders.placeholders import detect_placeholder
from sslcli.data.tables.cells import MARKERS, PLAIN, parse_character
from sslcli.errors import DataError, listing

DELIMITERS = (",", ";", "\t", "|")
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SAMPLE = 50  # rows that identify the delimiter
BLOCK_CELLS = 1 << 17
QUOTED = re.compile(r'"(?:[^"]|"")*"')
MAX_CELL = 1 << 20  # characters; a longer cell is an open quotation mark, or no table
KINDS = {  # first bytes of files that are not text
    b"PK\x03\x04": "an archive or an Excel file: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file: save the sheet as CSV",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\x89HDF": "an HDF5 file: save the table as CSV",
}


class DelimitedFile:
    """The rows of one text table. `columns`: the names of the header, or `names` where the file has no header.

    header: whether the first row has the names of the columns; None: unless it is of numbers alone, but for its first or last cell.
    quoting: whether cells may be in double quotes; None: unless a file with tabs has quotation marks that are none of that form.
    max_cell: characters. one_column: whether a table may have one column only.

    RequestError for the options, DataError for the content."""

    def __init__(
        self,
        path: str,
        delimiter: str | None = None,
        names: Sequence[str] | None = None,
        quoting: bool | None = True,
        max_cell: int = MAX_CELL,
        one_column: bool = False,
        header: bool | None = True,
    ):
        self.path, self.what, self.max_cell = path, escape(path), max_cell
        if delimiter is not None:
            delimiter = parse_character("delimiter", delimiter, "semicolon")
        with open(path, "rb") as file:
            head = file.read(64)
        self._open = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), open)
        with self._reading(), self._open(path, "rb") as file:
            head = file.read(1 << 16)
        self.encoding = "utf-16" if head[:2] in UTF16 else "utf-8-sig"
        self._require_text(head)
        sample = self._sample()
        self.skipped = 0
        if sample[:1] and (sep := sample[0].strip("\ufeff \r\n"))[:4].lower() == "sep=" and len(sep) == 5:
            delimiter, sample, self.skipped = delimiter or sep[4], sample[1:], 1  # a line that Excel writes
        self.delimiter = delimiter or _detect(sample)
        self.quoted = self._is_quoted() if quoting is None else quoting
        rows = [row for row in _parse_sample(sample, self.delimiter, self.quoted) if any(cell.strip() for cell in row)]
        if not rows:
            raise DataError(f"{self.what} is empty: expected a header with the names of columns, and rows")
        width = max(1, *(min(len(_trimmed(row)), len(rows[0])) for row in rows))
        if width == 1 and delimiter is None and not one_column:
            raise DataError(
                f"{self.what} has one column: none of {' '.join(map(repr, DELIMITERS))} divides its first row",
                "dataset.delimiter=space names another delimiter",
            )
        if header is None:
            header = not _is_values(rows[0][:width])
        if names is None and not header:
            names = [f"column {i}" for i in range(1, width + 1)]
        if names is None:
            self.columns = [cell.strip() for cell in rows[0][:width]]
            self._require_header()
        elif len(names) != width:
            raise DataError(
                f"{self.what} has {plural(width, 'column')}, but dataset.names has {plural(len(names), 'name')}",
                f"its first row is {listing(map(escape, rows[0]), 6)}",
            )
        else:
            self.columns = list(names)
        self.has_header = names is None

    def blocks(self, names: Collection[str]) -> Iterator[tuple[np.ndarray, dict[str, Sequence[str]]]]:
        """Blocks of rows of the columns `names`: the line of each row (n,) int64, and by the name of a column its cells (n,). Empty
        rows are left out."""
        size = max(16, BLOCK_CELLS // len(self.columns))
        rows: list[list[str]] = []
        lines: list[int] = []

        def block() -> tuple[np.ndarray, dict[str, Sequence[str]]]:
            cells = zip(self.columns, zip(*rows, strict=True), strict=True)
            return np.array(lines), {name: column for name, column in cells if name in names}

        for line, row in self._rows():
            rows.append(row)
            lines.append(line)
            if len(rows) == size:
                yield block()
                rows, lines = [], []
        if rows:
            yield block()

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        width, line = len(self.columns), self.skipped
        limit = csv.field_size_limit(self.max_cell)
        header = self.has_header
        try:
            with self._reading(), self._text() as text:
                for _ in range(self.skipped):
                    next(text)
                spaces = self.delimiter != " "
                reader = csv.reader(
                    text, delimiter=self.delimiter, strict=True, skipinitialspace=spaces, quoting=_quoting(self.quoted)
                )
                try:
                    for row in reader:
                        start, line = line + 1, self.skipped + reader.line_num
                        if len(row) != width:
                            if not any(cell.strip() for cell in row):
                                continue
                            row = row[:width] + _trimmed(row[width:])
                            if len(row) != width:
                                raise self._ragged(start, len(row))
                        elif not row[0] and not any(row):
                            continue
                        if header:
                            header = False
                            continue
                        yield start, row
                except csv.Error as error:
                    raise DataError(
                        f"{self.what}, line {line + 1}: not a valid row of a text table: {error}",
                        "check for an open quotation mark; a quotation mark inside a quoted cell is written twice",
                    ) from error
        finally:
            csv.field_size_limit(limit)

    def _ragged(self, line: int, cells: int) -> DataError:
        expected = "in the header" if self.has_header else "in the first row"
        return DataError(
            f"{self.what}, line {line}: expected {plural(len(self.columns), 'cell')} as {expected}, got {cells}",
            f"put a cell that contains {escape(self.delimiter)!r} in double quotes, or set dataset.delimiter",
        )

    def _text(self) -> TextIOWrapper:
        return TextIOWrapper(self._open(self.path, "rb"), encoding=self.encoding, newline="")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """DataError for a file that cannot be read, unpacked or decoded."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise self._not_text(error) from error
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(f"{self.what} is damaged or incomplete: {error}", "copy or download it again") from error
        except OSError as error:
            raise DataError(f"{self.what} cannot be read: {error.strerror or error}") from error

    def _not_text(self, error: UnicodeDecodeError) -> DataError:
        """An error with the line and the byte of the first character that is not UTF-8."""
        if self.encoding == "utf-16":
            return DataError(f"{self.what} is not valid UTF-16: {error.reason}", "save it as UTF-8")
        offset = 0
        with self._open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as place:
                    value = line[place.start]
                    return DataError(
                        f"{self.what}, line {number}, byte {offset + place.start:,}: 0x{value:02x} is not UTF-8",
                        "save it as UTF-8, or convert it: iconv -f CP1252 -t UTF-8 FILE > NEW.csv",
                    )
                offset += len(line)
        return DataError(f"{self.what} is not UTF-8: {error.reason}", "save it as UTF-8")

    def _require_text(self, head: bytes) -> None:
        kind = detect_placeholder(head) or next((k for magic, k in KINDS.items() if head.startswith(magic)), None)
        if kind is not None:
            raise DataError(f"{self.what} is {kind}")
        if self.encoding != "utf-16" and b"\0" in head:
            raise DataError(f"{self.what} is not a text table: it contains null bytes", "expected CSV, TSV or Parquet")

    def _is_quoted(self) -> bool:
        """False for a file with the same number of tabs in each line, of which a cell begins with a quotation mark but is not in
        quotes."""
        if self.delimiter != "\t":
            return True
        widths, quoted = set(), True
        with self._reading(), self._text() as text:
            for line in text:
                cells = line.rstrip("\r\n").split("\t")
                if any(cells):
                    widths.add(len(cells))
                if '"' in line:
                    quoted = quoted and all(not c.startswith('"') or QUOTED.fullmatch(c) for c in cells)
        return quoted or len(widths) > 1

    def _sample(self) -> list[str]:
        with self._reading(), self._text() as text:
            lines: list[str] = []
            size = 0
            while len(lines) < SAMPLE and size < MAX_CELL and (line := text.readline(MAX_CELL)):
                lines.append(line)
                size += len(line)
        return lines

    def _require_header(self) -> None:
        """DataError where the first row cannot be names: numbers other than 0, 1, 2, ... (years, or counts of columns)."""
        numbers = [float(cell) for cell in self.columns if PLAIN.fullmatch(cell)]
        if numbers and not _are_positions(numbers):
            raise DataError(
                f"{self.what} has no header: its first row is {listing(map(escape, self.columns), 6)}",
                f"add a first line with the names of its {plural(len(self.columns), 'column')}, "
                "or name them: dataset.names=[a,b,...]",
            )


def _are_positions(numbers: Sequence[float]) -> bool:
    """Whether numbers may be names of columns: 0, 1, 2, ..."""
    return all(v.is_integer() for v in numbers) and all(a < b for a, b in itertools.pairwise(numbers))


def _is_values(row: Sequence[str]) -> bool:
    """Whether a row holds numbers that are no names of columns, but for a label in its first or last cell."""
    cells = [cell.strip() for cell in row]
    for part in (cells, cells[1:], cells[:-1]):
        numbers = [float(cell) for cell in part if PLAIN.fullmatch(cell)]
        if numbers and all(PLAIN.fullmatch(cell) or cell.lower() in MARKERS for cell in part):
            return not _are_positions(numbers)
    return False


def _quoting(quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _parse_sample(lines: Sequence[str], delimiter: str, quoted: bool = True) -> list[list[str]]:
    """The rows of the first lines of a file; a last row that continues after them is left out."""
    rows: list[list[str]] = []
    limit = csv.field_size_limit(MAX_CELL)
    try:
        spaces = delimiter != " "
        rows.extend(
            csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaces, quoting=_quoting(quoted))
        )
    except csv.Error:
        pass  # reported with its line when the rows are read
    finally:
        csv.field_size_limit(limit)
    return rows


def _detect(lines: Sequence[str]) -> str:
    """The delimiter: with it, the rows have as many cells as the header; of several, the one with most columns."""

    def score(delimiter: str) -> tuple[bool, float, int]:
        rows = [_trimmed(row) for row in _parse_sample(lines, delimiter) if any(cell.strip() for cell in row)]
        if not rows:
            return False, 0.0, 0
        width = len(rows[0])
        return width > 1, sum(len(row) <= width for row in rows) / len(rows), width

    return max(DELIMITERS, key=score)


def _trimmed(cells: list[str]) -> list[str]:
    """Without trailing empty cells."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]
