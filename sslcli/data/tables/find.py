"""Find the files of a table: one file, a folder with train and test files, or a folder of parts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.folders.paths import is_hidden, require_path, require_regular
from sslcli.data.folders.split_names import SPLITS, parse_split
from sslcli.data.tables.columns import TableFile
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.parquet import ParquetFile, is_parquet
from sslcli.errors import DataError, RequestError, listing

WHAT = "a table (.csv, .tsv, .parquet), or a folder of them"
ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".data", ".parquet", ".pq")
COMPRESSED = (".gz", ".xz", ".bz2")


def find_files(
    path: str | None, test: str | None, notes: list[str], endings: Sequence[str] = ENDINGS, what: str = WHAT
) -> dict[str, list[str]]:
    """The files of each split: train, test, val, unlabelled. Of a folder, the files named train, test, ...; where no file is
    named so, all files are parts of one table. `test`: a file that is the test split. `endings`: of the files of a folder."""
    text = require_path(path, what)
    files = {"train": [require_regular(text)]} if not os.path.isdir(text) else _in_folder(text, endings, notes)
    if test is not None:
        files["test"] = [require_regular(beside(test, text))]
        if files["test"] == files.get("train"):
            raise RequestError("dataset.test and dataset.path are the same file", "dataset.test=FILE")
    return files


def open_file(path: str, delimiter: str | None, names: Sequence[str] | None) -> TableFile:
    """A table by its content: Parquet, else text. Columns without a name get one; DataError where two have the same."""
    try:
        parquet = is_parquet(path)
    except OSError as error:
        raise DataError(f"{escape(path)} cannot be read: {error.strerror}") from error
    file: TableFile = ParquetFile(path) if parquet else DelimitedFile(path, delimiter, names)
    file.columns = [name or f"column {i}" for i, name in enumerate(file.columns, 1)]
    for i, name in enumerate(file.columns):
        if (first := file.columns.index(name)) != i:
            raise DataError(
                f"{file.what} has two columns named {escape(name)}: columns {first + 1} and {i + 1}",
                "give one of them another name",
            )
    return file


def open_recorded(
    path: str, delimiter: str | None, header: Sequence[str], needed: Sequence[str], label: str | None
) -> TableFile:
    """A table that is written as the training data were, or in another way: with a header, or without one where `header` holds the
    names that were given for the training data. The column `label` may be absent.

    `delimiter`: that was given for the training data; `needed`: the columns that identify the right way."""
    opened: list[TableFile] = []
    errors: list[DataError] = []
    ways: list[Sequence[str] | None] = [None]
    if header:
        ways += [header, [name for name in header if name != label]]
    for mark in dict.fromkeys((delimiter, None)):
        for names in ways:
            try:
                file = open_file(path, mark, names)
            except DataError as error:
                errors.append(error)
                continue
            has_header = names is None and 2 * len(set(file.columns) & {*header, *needed}) > len(file.columns)
            if has_header or set(needed) <= set(file.columns):
                return file
            opened.append(file)
    if opened and not header:
        return opened[0]  # its columns are compared with those of training
    raise errors[0]


def beside(file: str, path: str, key: str = "dataset.test", what: str = "a table") -> str:
    """The path of another file: as given, or beside the file or folder `path`, which may have moved."""
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    places = [os.path.expanduser(file), os.path.join(folder, file), os.path.join(folder, os.path.basename(file))]
    return next((p for p in places if os.path.isfile(p)), None) or require_path(file, what, key)


def _in_folder(folder: str, endings: Sequence[str], notes: list[str]) -> dict[str, list[str]]:
    try:
        entries = sorted(f for f in os.listdir(folder) if not is_hidden(f))
    except OSError as error:
        raise DataError(f"{escape(folder)} cannot be read: {error.strerror}") from error
    tables = [f for f in entries if stem(f, endings) is not None and os.path.isfile(os.path.join(folder, f))]
    if not tables:
        raise DataError(
            f"no table ({', '.join(endings)}) in {escape(folder)}; "
            + (f"it holds {listing(map(escape, entries), 6)}" if entries else "it is empty")
        )
    splits: dict[str, list[str]] = {}
    for file in tables:
        parsed = parse_split(stem(file, endings) or "")
        if parsed is not None:
            splits.setdefault(parsed[0], []).append(os.path.join(folder, file))
    if "train" not in splits:
        return {"train": [os.path.join(folder, f) for f in tables]}
    splits = {kind: splits[kind] for kind in SPLITS if kind in splits}
    used = {p for paths in splits.values() for p in paths}
    if ignored := [f for f in tables if os.path.join(folder, f) not in used]:
        notes.append(f"warning: files beside train and test ignored: {listing(map(escape, ignored), 6)}")
    return splits


def stem(file: str, endings: Sequence[str] = ENDINGS) -> str | None:
    """`train.csv.gz` -> `train`; None for other kinds of files."""
    name = next((file[: -len(c)] for c in COMPRESSED if file.lower().endswith(c)), file)
    return next((name[: -len(e)] for e in endings if name.lower().endswith(e)), None)
