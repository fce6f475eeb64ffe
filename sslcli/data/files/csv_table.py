"""Parse CSV tables of any common dialect: comma, semicolon, tab or bar as delimiter, any line ends, UTF-8 or UTF-16 with or
without a byte order mark, quoted cells, trailing empty columns and rows, column names in any case.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sslcli.console import escape
from sslcli.errors import DataError, listing

DELIMITERS = ",;\t|"
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Names of columns by meaning, in order of preference; case, spaces, - and _ are ignored.
PATHS = (
    "path",
    "name",
    "file",
    "filename",
    "filepath",
    "image",
    "imagepath",
    "imagename",
    "imagefile",
    "img",
    "imgpath",
)
LABELS = ("label", "labels", "class", "classname", "target", "category")
SPLITS = ("split", "set", "subset")
GROUPS = ("group", "groups", "speaker")


@dataclass(frozen=True)
class Table:
    what: str  # the table's name in messages
    columns: list[str]
    rows: list[tuple[int, list[str]]]  # line number, one cell for each column; without empty rows

    def column(self, words: Sequence[str]) -> str | None:
        """The column named by the first of `words` that occurs, or None. Raises DataError where two columns have that name."""
        by_name: dict[str, list[str]] = {}
        for c in self.columns:
            by_name.setdefault(normalize_name(c), []).append(c)
        matches = next((by_name[w] for w in words if w in by_name), None)
        if matches is not None and len(matches) > 1:
            raise DataError(f"{self.what} has two columns named {escape(matches[0])}", "give one of them another name")
        return None if matches is None else matches[0]


def normalize_name(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) if name.isascii() else name.strip().casefold()


def decode_text(content: bytes) -> str:
    """Decode the content of a text file; bytes that are not UTF-8 become surrogates, as in Python's file names."""
    encoding = BOMS.get(content[:2])
    if encoding is None and (zeros := content[:400].count(0)) > len(content[:400]) / 4:
        encoding = "utf-16-le" if content[1:400:2].count(0) >= zeros / 2 else "utf-16-be"
    if encoding is not None:
        return content.decode(encoding, "replace").lstrip("\ufeff")
    return content.decode("utf-8-sig", "surrogateescape")


def decode_cp1252(text: str) -> str:
    """Decode a cell whose bytes are not UTF-8 as Windows code page 1252, in which Excel writes CSV files."""
    if text.isascii() or not any("\udc80" <= c <= "\udcff" for c in text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def parse_table(text: str, what: str, words: Sequence[str] = PATHS) -> Table:
    """Parse a table. `words`: possible names of one of its columns, which identify the delimiter. Raises DataError."""
    line = 0
    if text[:4].lower() == "sep=" and len(first := text.splitlines()[0].strip()) == 5:  # a line that Excel writes
        text, line, delimiter = text[text.index("\n") + 1 :] if "\n" in text else "", 1, first[4]
    else:
        delimiter = _header(text, words)[2]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if not any(c.strip() for c in cells):
                continue
            if not columns:
                columns = [c.strip() for c in _trimmed(cells)]
                continue
            if len(cells) > len(columns):
                cells = cells[: len(columns)] + _trimmed(cells[len(columns) :])
            if len(cells) != len(columns):
                raise DataError(
                    f"{what}, line {line + reader.line_num}: expected {len(columns)} columns as in the header, got {len(cells)}",
                    f"correct that line to {listing(columns)} (put a name with a comma in double quotes)",
                )
            rows.append((line + reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{what} is not a CSV file: line {line + reader.line_num}: {error}", "check for an open quotation mark"
        ) from error
    return Table(what, columns, rows)


def _trimmed(cells: list[str]) -> list[str]:
    """Without trailing empty cells."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


def has_header(text: str, words: Sequence[str] = PATHS) -> bool:
    """Whether the first line is a header of two columns or more, one of them named by one of `words`."""
    named, columns, _ = _header(text, words)
    return named and columns > 1


def _header(text: str, words: Sequence[str]) -> tuple[bool, int, str]:
    """Whether the first line has a column named by one of `words`, its number of columns, and the delimiter, for the best
    delimiter."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")

    def columns(delimiter: str) -> tuple[bool, int]:
        cells = header.replace('"', "").rstrip("\n").split(delimiter)
        return any(normalize_name(c) in words for c in cells), len(cells)

    best = max(DELIMITERS, key=columns)
    return *columns(best), best
