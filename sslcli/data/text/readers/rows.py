"""Read documents from the rows of tables: CSV, TSV, JSON Lines, Parquet."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from sslcli.console import escape
from sslcli.data.files.csv_table import SPLITS, normalize_name
from sslcli.data.folders.split_names import exact_split
from sslcli.data.tables.cells import PLAIN, format_number
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.id_column import require_id, require_trained_id
from sslcli.data.tables.ids import IdReader
from sslcli.data.tables.label import choose_label, require_column
from sslcli.data.tables.parquet import ParquetFile, is_parquet
from sslcli.data.text.corpus import PARTS
from sslcli.data.text.readers.collector import Collector
from sslcli.data.text.readers.folder import is_text_name
from sslcli.data.text.readers.json_lines import JsonLinesFile, is_json
from sslcli.errors import DataError, RequestError, listing

TEXTS = ("text", "sentence", "document", "review", "content", "body", "comment", "message", "article", "abstract")
TEXT = TEXTS[0]
SELECT = "dataset.text=NAME"
MAX_CELL = 1 << 30  # characters; what is longer than dataset.max_bytes is cut
QUOTING = ("auto", "csv", "none")


class RowFile(Protocol):
    """A table. `columns`: their names."""

    what: str
    columns: list[str]

    def blocks(self, names: Collection[str]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]: ...


@dataclass(frozen=True)
class Format:
    """How text tables are written, see `sslcli.data.sources.text_table.text_table`."""

    delimiter: str | None = None
    quoting: str = "auto"
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.quoting not in QUOTING:
            raise RequestError(
                f"dataset.quoting: expected {', '.join(QUOTING)}, got {escape(self.quoting)}", "dataset.quoting=none"
            )


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read. split: the one with words such as train and test, or None. id: of identifiers."""

    text: str
    label: str | None
    split: str | None
    id: str | None = None


def open_rows(path: str, form: Format) -> RowFile:
    """A table by its content. DataError where two columns have one name."""
    try:
        parquet = is_parquet(path)
    except OSError as error:
        raise DataError(f"{escape(path)} cannot be read: {error.strerror}") from error
    if parquet:
        file: RowFile = ParquetFile(path)
    elif is_json(path):
        file = JsonLinesFile(path)
    else:
        quoting = None if form.quoting == "auto" else form.quoting == "csv"
        file = DelimitedFile(path, form.delimiter, form.names, quoting, MAX_CELL, one_column=True)
    file.columns = [name or f"column {i}" for i, name in enumerate(file.columns, 1)]
    if repeated := {name for name in file.columns if file.columns.count(name) > 1}:
        raise DataError(
            f"{file.what} has two columns named {escape(sorted(repeated)[0])}", "give one of them another name"
        )
    return file


def choose_columns(
    file: RowFile,
    text: str,
    label: str | None,
    several: bool,
    notes: list[str],
    trained: str | None = None,
    select: str = SELECT,
    id: str | None = None,
) -> Columns:
    """The columns that `dataset.text` and `dataset.label` name. `several`: there are files for the splits, so that no column says
    them. `trained`, `select`: as in `TableReader`. `id`: the column of identifiers, which is none of the others. RequestError where
    there is no such column."""
    split = None if several else next((c for c in file.columns if normalize_name(c) in SPLITS and c != id), None)
    others = [c for c in file.columns if c not in (split, id)]
    if text == "auto":
        found = _same_name(trained or TEXT, others)
        found += [c for word in TEXTS for c in others if normalize_name(c) == word]
        found = found or (others if len(others) == 1 else [])
        if not found:
            words = (escape(trained or TEXT), *TEXTS)
            raise RequestError(
                f"{file.what} has no column named {', '.join(dict.fromkeys(words))}: {select} selects another one",
                f"its columns: {listing(map(escape, file.columns), 12)}",
            )
        text = found[0]
        if trained is not None and not _same_name(trained, [text]):
            notes.append(
                f"warning: {file.what} has no column {escape(trained)}, which the encoder was trained with: {escape(text)} is read "
                f"({select} selects another one)"
            )
    elif text == trained:
        found = _same_name(trained, file.columns)
        if not found:
            raise RequestError(
                f"{file.what} has no column {escape(trained)}, which the encoder was trained with; "
                f"its columns: {listing(map(escape, file.columns), 12)}",
                f"to read another one: {select}",
            )
        text = found[0]
    else:
        text = require_column(text, file.columns, file.what, "text")
    label = choose_label(label, [c for c in others if c != text], file.what, notes)
    return Columns(text, label, split if split not in (text, label) else None, id)


def _same_name(name: str, columns: Sequence[str]) -> list[str]:
    """The columns of that name, exactly or in another case or spacing, the exact one first."""
    exact = [c for c in columns if c == name]
    plain = normalize_name(name)
    return exact + [c for c in columns if plain and c != name and normalize_name(c) == plain]


@dataclass
class TableReader:
    """Adds the rows of tables of one data set to a collector.

    text, label: as in `choose_columns`. several: there are files for the splits. columns: those of the first file, which the others
    must have too, except for the label. trained: the column that an encoder was trained with. select: what names another
    column of text, in hints, where FILE is the path of the table. id: the column of identifiers; trained_id: that of an encoder."""

    collector: Collector
    form: Format
    text: str
    label: str | None
    several: bool
    notes: list[str]
    columns: Columns | None = None
    trained: str | None = None
    select: str = SELECT
    id: str | None = None
    trained_id: str | None = None

    def __post_init__(self) -> None:
        self.collector.ids = None if self.id is None else IdReader(self.id)

    def read(self, path: str, part: str) -> None:
        """Add the rows of a file. RequestError, DataError."""
        file = open_rows(path, self.form)
        self._require_id(file)
        if self.columns is None:
            self.columns = choose_columns(
                file, self.text, self.label, self.several, self.notes, self.trained, self._select(file), self.id
            )
            shown = "" if self.columns.label is None else f"; label: {escape(self.columns.label)}"
            self.notes.append(f"column of text: {escape(self.columns.text)}{shown}")
        own = self._own(file)
        counts = self._rows(file, own, part)
        if counts:
            words = ", ".join(f"{n:,} {escape(word)}" for word, n in counts.items())
            self.notes.append(f"the column {escape(str(own.split))} defines the split: {words}")

    def read_unlabelled(self, path: str) -> None:
        """Add the texts of a table with the same column of text, or the lines of a .txt file, to the unlabeled split."""
        if is_text_name(path):
            self.collector.read_lines(path, "unlabelled")
        else:
            file = open_rows(path, self.form)
            self._rows(file, replace(self._own(file), label=None, split=None), "unlabelled")

    def _select(self, file: RowFile) -> str:
        return self.select.replace("FILE", shlex.quote(file.what))

    def _require_id(self, file: RowFile) -> None:
        if self.id == self.trained_id:
            require_trained_id(self.id, file.columns, file.what, "text_table")
        else:
            require_id(self.id, file.columns, file.what, {"text": [self.text], "label": [self.label]})

    def _own(self, file: RowFile) -> Columns:
        assert self.columns is not None
        if self.columns.text not in file.columns:
            raise DataError(
                f"{file.what} has no column {escape(self.columns.text)}, as the first file has",
                f"its columns: {listing(map(escape, file.columns), 12)}",
            )
        there = {key: name if name in file.columns else None for key, name in vars(self.columns).items()}
        return replace(self.columns, label=there["label"], split=there["split"], id=there["id"])

    def _rows(self, file: RowFile, columns: Columns, part: str) -> dict[str, int]:
        """Add all rows. Returns how many have each word of the split column.

        DataError where the text column holds numbers, or the split column another word."""
        names = {c for c in vars(columns).values() if c is not None}
        numeric, words, first = True, _SplitWords(file.what), len(self.collector.builder)
        self.collector.begin_table(file, "row" if isinstance(file, ParquetFile) else "line", columns.id is not None)
        for lines, block in file.blocks(names):
            if (
                not words.counts
                and columns.split is not None
                and not _names_splits(columns.split, block[columns.split])
            ):
                columns = replace(columns, split=None)
            texts = _texts(file, columns.text, block[columns.text], lines, self._select(file))
            numeric = numeric and all(PLAIN.fullmatch(t.strip()) for t in texts if t.strip())
            labels = None if columns.label is None else [cell_text(v) for v in block[columns.label]]
            parts = np.full(len(lines), PARTS.index(part), np.int8)
            if columns.split is not None:
                parts = words.parts(lines, [cell_text(v) for v in block[columns.split]])
            ids = None if columns.id is None else block[columns.id]
            self.collector.add_rows(lines, texts, labels, parts, file.what, ids)
        if len(self.collector.builder) == first:
            raise DataError(f"{file.what} has no row with text in the column {escape(columns.text)}")
        if numeric:
            raise DataError(
                f"{file.what}: the column {escape(columns.text)} holds numbers, where text is expected",
                f"{self._select(file)} selects another one of {listing(map(escape, file.columns), 12)}",
            )
        return words.counts


def _names_splits(name: str, cells: Sequence[object]) -> bool:
    """Whether a column named like one of splits holds their words; one named `split` must."""
    return normalize_name(name) == "split" or all(exact_split(str(cell)) is not None for cell in set(cells))


class _SplitWords:
    """Words of a split column, such as `dev`, as indices of PARTS."""

    def __init__(self, what: str):
        self.what, self.counts = what, dict[str, int]()
        self._known: dict[str, int] = {}

    def parts(self, lines: np.ndarray, cells: Sequence[str | None]) -> np.ndarray:
        out = np.empty(len(cells), np.int8)
        for i, cell in enumerate(cells):
            word = (cell or "").strip()
            if word not in self._known:
                kind = exact_split(word)
                if kind is None:
                    raise DataError(
                        f"{self.what}, line {lines[i]:,}: {escape(word) or 'nothing'} in the column of splits is none of "
                        f"{', '.join(PARTS)}",
                        "give the column another name if it is none of splits",
                    )
                self._known[word] = PARTS.index(kind)
            out[i] = self._known[word]
            self.counts[word] = self.counts.get(word, 0) + 1
        return out


def _texts(file: RowFile, name: str, cells: Any, lines: np.ndarray, select: str) -> list[str]:
    if isinstance(cells, np.ndarray):
        raise DataError(f"{file.what}: the column {escape(name)} holds numbers, where text is expected", select)
    for line, cell in zip(lines, cells, strict=True):
        if not isinstance(cell, str):
            problem = (
                f"has no {escape(name)}" if cell is None else f"{escape(name)} is {type(cell).__name__}, not a string"
            )
            raise DataError(f"{file.what}, line {line:,}: {problem}", f"{select} selects another key")
    return list(cells)


def cell_text(value: object) -> str | None:
    """A label or a split as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if value != value else format_number(float(value))
    return str(value)
