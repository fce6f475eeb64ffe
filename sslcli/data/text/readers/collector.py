"""Collect documents of one file or of many, with their labels, splits and places."""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.files.string_table import StringTable
from sslcli.data.tables.ids import IdReader
from sslcli.data.tables.label import sort_names
from sslcli.data.text.corpus import PARTS, Corpus
from sslcli.data.text.documents import DocumentsBuilder, Growing
from sslcli.data.text.lines import LineReader, TextFile, read_whole
from sslcli.errors import DataError, RequestError, listing

MIN_BYTES = 16


class Collector:
    """Documents in the order in which they are read.

    max_bytes: of one; longer ones are cut, and counted. ids: reads the identifiers of the rows of tables, or None."""

    def __init__(self, max_bytes: int):
        if max_bytes < MIN_BYTES:
            raise RequestError(
                f"dataset.max_bytes: expected at least {MIN_BYTES}, got {max_bytes}", "dataset.max_bytes=1048576"
            )
        self.builder = DocumentsBuilder(max_bytes)
        self.parser = LabelParser()
        self._parts, self._labels, self._lines = Growing(np.int8), Growing(np.int32), Growing(np.int32)
        self._codes: dict[str, int] = {}
        self._files: list[tuple[int, str, str]] = []  # the first document of each, its name, and the word for its rows
        self._paths: list[str] | None = None  # one for each document of a folder
        self.empty: dict[str, int] = {}  # what was left out, in words -> how many
        self.empty_lines = Growing(np.int32)  # the number of each line or row left out
        self.ids: IdReader | None = None
        self._ids: list[str] = []  # where there are some, one for each document; "" for a line of text
        self.empty_ids: list[str] = []  # those of `empty_lines`

    def read_lines(self, path: str, part: str) -> None:
        """Add a document for each line of a file."""
        first = self._begin(path, "line")
        reader = LineReader(self.builder)
        reader.read(TextFile(path))
        self._lines.append(reader.lines.take())
        empty = reader.empty.take()
        self.empty_lines.append(empty)
        if self.ids is not None:
            self._ids += [""] * (len(self.builder) - first)
            self.empty_ids += [""] * len(empty)
        self._end(first, part, "empty line", len(empty), path)

    def read_file(self, path: str, name: str) -> bool:
        """Add a training document without a label; False where the file is empty. DataError where it cannot be read."""
        if not read_whole(path, self.builder):
            return False
        self._paths = [] if self._paths is None else self._paths
        self._paths.append(name)
        self._parts.append(np.array([PARTS.index("train")], np.int8))
        self._labels.append(np.array([-1], np.int32))
        return True

    def read_files(self, paths: Sequence[str], names: Sequence[str], classes: Sequence[str | None], part: str) -> None:
        """Add a document for each file, with its class."""
        first, empty, kept = len(self.builder), 0, []
        for path, name, label in zip(paths, names, classes, strict=True):
            if read_whole(path, self.builder):
                kept.append(name)
                self._labels.append(np.array([self._code(label)], np.int32))
            else:
                empty += 1
        self._paths = [*(self._paths or []), *kept]
        self._parts.append(np.full(len(kept), PARTS.index(part), np.int8))
        self._count("empty file", empty)
        if len(self.builder) == first and part == "train":
            raise DataError(f"none of {plural(len(paths), 'file')} holds any text")

    def add_rows(
        self,
        lines: np.ndarray,
        texts: Sequence[str],
        labels: Sequence[str | None] | None,
        parts: np.ndarray,
        what: str,
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Add rows of a table. lines: (n,) the number of each, parts: (n,) index of PARTS, ids: the cells of identifiers. DataError
        for null bytes, and for identifiers that are missing or repeated."""
        content = [text.strip() for text in texts]
        if self.ids is not None:
            named = [""] * len(content) if ids is None else self.ids.read(ids, lines)
            for text, name in zip(content, named, strict=True):
                (self._ids if text else self.empty_ids).append(name)
        kept = [i for i, text in enumerate(content) if text]
        try:
            encoded = [content[i].encode() for i in kept]
        except UnicodeEncodeError:
            bad = next(i for i in kept if any("\ud800" <= c <= "\udfff" for c in content[i]))
            raise DataError(f"{what}, line {lines[bad]:,}: half of a surrogate pair is no character") from None
        if bad_line := next((lines[i] for i, text in zip(kept, encoded, strict=True) if b"\0" in text), None):
            raise DataError(
                f"{what}, line {bad_line:,}: a null byte, which is no text", "remove it, or leave the row out"
            )
        self.builder.add_all(encoded)
        self._count("empty row", len(content) - len(kept))
        self.empty_lines.append(lines[[i for i, text in enumerate(content) if not text]].astype(np.int32))
        self._lines.append(lines[kept].astype(np.int32))
        self._parts.append(parts[kept].astype(np.int8))
        codes = [self._code(labels[i]) for i in kept] if labels is not None else [-1] * len(kept)
        self._labels.append(np.array(codes, np.int32))

    def begin_table(self, file: Any, word: str, named: bool) -> None:
        """Begin the rows of a table. `word`: what the number of a row counts. `named`: whether it has a column of identifiers."""
        self._begin(file.what, word)
        if self.ids is not None and named:
            self.ids.begin(file)

    def _begin(self, path: str, word: str) -> int:
        self._files.append((len(self.builder), os.path.basename(path), word))
        return len(self.builder)

    def _end(self, first: int, part: str, what: str, empty: int, path: str) -> None:
        n = len(self.builder) - first
        if not n:
            raise DataError(
                f"{escape(path)} holds no text: " + (plural(empty, what) if empty else "it is empty"),
                "expected a document on each line",
            )
        self._parts.append(np.full(n, PARTS.index(part), np.int8))
        self._labels.append(np.full(n, -1, np.int32))
        self._count(what, empty)

    def _count(self, what: str, n: int) -> None:
        if n:
            self.empty[what] = self.empty.get(what, 0) + n

    def _code(self, label: str | None) -> int:
        text = self.parser.label(label)
        return -1 if text is None else self._codes.setdefault(text, len(self._codes))

    def corpus(self, notes: list[str]) -> Corpus:
        """All documents, with notes on what was left out and cut. The object is empty afterwards."""
        documents, max_bytes = self.builder.build(), self.builder.max_bytes
        names = ", ".join(escape(name) for _, name, _ in self._files[:3])
        more = f" and {len(self._files) - 3} more" if len(self._files) > 3 else ""
        notes.append(f"{plural(len(documents), 'document')}" + (f" of {names}{more}" if names else ""))
        notes += [f"{plural(n, what)} left out" for what, n in self.empty.items()]
        if self.builder.cut:
            cut = plural(self.builder.cut, "document")
            notes.append(f"warning: {cut} longer than {max_bytes:,} bytes cut (dataset.max_bytes)")
        notes += self.parser.notes()
        parts, codes = self._parts.take(), self._labels.take()
        labels, classes = self._classes(parts, codes, notes)
        ids, self._ids = self._ids, []
        rows = LineNames(self._files, self._lines.take(), ids)
        place: Any = rows if self._paths is None else StringTable(self._paths)
        return Corpus(documents, parts, labels, classes, place, id=None if self.ids is None else self.ids.name)

    def _classes(
        self, parts: np.ndarray, codes: np.ndarray, notes: list[str]
    ) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """(n,) int64 indices of the sorted classes, or None without labels."""
        texts = list(self._codes)
        if "-1" in texts:
            codes = _without_placeholder(parts, codes, texts.index("-1"), notes)
        used = np.zeros(len(texts) + 1, bool)
        used[codes] = True
        plain = normalize_numbers([text if used[i] else None for i, text in enumerate(texts)])
        classes = sort_names({text for text in plain if text is not None})
        if not classes:
            return None, ()
        index = {c: i for i, c in enumerate(classes)}
        lookup = np.array([*(-1 if text is None else index[text] for text in plain), -1], np.int64)
        labels: np.ndarray = lookup[codes]
        if unlabelled := int(((labels < 0) & (parts != PARTS.index("unlabelled"))).sum()):
            notes.append(f"{plural(unlabelled, 'document')} without a label")
        return labels, tuple(classes)


def _without_placeholder(parts: np.ndarray, codes: np.ndarray, code: int, notes: list[str]) -> np.ndarray:
    """Labels -1 of a split in which all labels are so, as published test splits without labels have them, become missing."""
    whole = [p for p in np.unique(parts) if (codes[parts == p] == code).all()]
    if not whole or not ((codes != code) & (codes >= 0)).any():
        return codes
    names = listing((PARTS[p] for p in whole), 4)
    notes.append(f"warning: all labels of {names} are -1, which is read as no label")
    return np.where(np.isin(parts, whole), -1, codes).astype(codes.dtype)


class LineNames(Sequence[str]):
    """`line 17`, or `train.csv, line 17` where there are several files, made when they are asked for.

    ids: the identifiers of all, which are the names, "" for one without; none where it is empty."""

    def __init__(self, files: Sequence[tuple[int, str, str]], lines: np.ndarray, ids: Sequence[str] = ()):
        self._firsts = [first for first, _, _ in files]
        self._files, self._lines, self._ids = list(files), lines, StringTable(ids)

    @property
    def word(self) -> str:
        """What a number counts in the first file: line or row."""
        return self._files[0][2]

    def with_lines(self, lines: np.ndarray, ids: Sequence[str] = ()) -> tuple[LineNames, np.ndarray]:
        """The names of one file with further `lines`, which have these `ids`, in the order of the file, and where (n,) those of
        this object are."""
        assert len(self._files) == 1
        whole, named = np.concatenate([self._lines, lines]), [*self._ids, *ids]
        order = np.argsort(whole)
        names = LineNames(self._files, whole[order], [named[i] for i in order] if named else ())
        return names, np.argsort(order)[: len(self)]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if len(self._ids) and (id := self._ids[at]):
            return id
        _, name, word = self._files[bisect.bisect_right(self._firsts, at) - 1]
        return f"{word} {self._lines[at]}" if len(self._files) == 1 else f"{name}, {word} {self._lines[at]}"
