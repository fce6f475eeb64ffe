"""Tables as people have them: comma, semicolon or tab between cells, any line ends, UTF-8 or UTF-16 with or without a byte
order mark, quoted cells, empty columns and rows at the end, names of columns in any case.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sslcli.data.notify import shown
from sslcli.errors import DataError, listing

DELIMITERS = ",;\t|"
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What a column may be called, by its meaning, in order of preference; case, spaces, - and _ make no difference.
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
GROUPS = ("group", "groups")


@dataclass(frozen=True)
class Table:
    what: str  # for messages
    columns: list[str]
    rows: list[tuple[int, list[str]]]  # line, a cell for each column; no row is empty

    def column(self, words: Sequence[str]) -> str | None:
        """The column that has this meaning: the first of `words` that one is called, or None. DataError where two are."""
        known: dict[str, list[str]] = {}
        for c in self.columns:
            known.setdefault(normalize_name(c), []).append(c)
        found = next((known[w] for w in words if w in known), None)
        if found is not None and len(found) > 1:
            raise DataError(f"{self.what} has two columns named {shown(found[0])}", "give one of them another name")
        return None if found is None else found[0]


def normalize_name(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) if name.isascii() else name.strip().casefold()


def decode_text(content: bytes) -> str:
    """The text of a file; bytes that are no UTF-8 are kept as surrogates, as Python has them in names of files."""
    encoding = BOMS.get(content[:2])
    if encoding is None and (zeros := content[:400].count(0)) > len(content[:400]) / 4:
        encoding = "utf-16-le" if content[1:400:2].count(0) >= zeros / 2 else "utf-16-be"
    if encoding is not None:
        return content.decode(encoding, "replace").lstrip("\ufeff")
    return content.decode("utf-8-sig", "surrogateescape")


def decode_cp1252(text: str) -> str:
    """A cell whose bytes are no UTF-8 is of Windows' western code page, as Excel writes a CSV."""
    if text.isascii() or not any("\udc80" <= c <= "\udcff" for c in text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def parse_table(text: str, what: str, words: Sequence[str] = PATHS) -> Table:
    """The table in a text. `words`: what one of its columns is called, by which the delimiter is known. Raises DataError."""
    line = 0
    if text[:4].lower() == "sep=" and len(first := text.splitlines()[0].strip()) == 5:  # for Excel
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
                    f"{what}, line {line + reader.line_num}: has not the {len(columns)} columns of the header",
                    f"correct that line; each wants {listing(columns)} (a comma in a name goes in double quotes)",
                )
            rows.append((line + reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{what} is no CSV file: line {line + reader.line_num}: {error}", "is a quotation mark left open there?"
        ) from error
    return Table(what, columns, rows)


def _trimmed(cells: list[str]) -> list[str]:
    """Without empty cells at the end."""
    n = len(cells)
    while n and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


def has_header(text: str, words: Sequence[str] = PATHS) -> bool:
    """Whether the first line names columns, one of them by one of `words`."""
    named, columns, _ = _header(text, words)
    return named and columns > 1


def _header(text: str, words: Sequence[str]) -> tuple[bool, int, str]:
    """Whether the first line has a column named by one of `words`, how many it has, and the delimiter by which that is so."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")

    def columns(delimiter: str) -> tuple[bool, int]:
        cells = header.replace('"', "").rstrip("\n").split(delimiter)
        return any(normalize_name(c) in words for c in cells), len(cells)

    best = max(DELIMITERS, key=columns)
    return *columns(best), best
