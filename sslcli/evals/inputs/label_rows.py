"""Parse the rows of a label file and match each row to a sample."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sslcli.console import escape, format_override, plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.csv_table import LABELS, PATHS, SPLITS, decode_cp1252, decode_text, normalize_name, parse_table
from sslcli.data.files.csv_text import cell
from sslcli.data.files.file_names import normalize_path, stem
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.folders.split_names import exact_split
from sslcli.data.images.decode import is_image_name
from sslcli.data.loading.bad_samples import format_examples
from sslcli.data.samples.window_names import windows_of_recordings
from sslcli.errors import DataError, RequestError, listing, nearest

NAMES = (*PATHS, "id")
HEADER = "the first line must be name,label (or id,label), and optionally split (train or test)"


@dataclass(frozen=True)
class Row:
    line: int
    name: str
    label: str
    split: str  # train, test, or "" if the file has no such column


def read(file: str, known: Sequence[str], id: str | None = None) -> tuple[str, list[Row], list[str], str]:
    """Read a label file: the column that identifies samples, the labeled rows, notes, and the SHA-256 of the content.

    `known`: the classes of the data set. `id`: its column of identifiers; without a column of this name, or one of names, they are
    in the first one. Raises RequestError if the file cannot be read, DataError if it is invalid.
    """
    path = Path(os.path.expanduser(file))
    if path.exists() and not path.is_file():
        raise RequestError(f"labels={escape(file)} is no regular file", HEADER)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        close = nearest(path.name, there)
        raise RequestError(
            f"labels={escape(file)}: there is no such file",
            f"did you mean {format_override('labels', str(path.with_name(close)))} ?" if close else HEADER,
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"labels={escape(file)} cannot be read: {error.strerror}") from error
    column, rows, notes = _parsed(decode_text(content), known, file, id)
    labeled = [row for row in rows if row.label]
    if not labeled:
        raise DataError(f"{escape(file)} holds no label" + "".join(f"; {n}" for n in notes), HEADER)
    empty = len(rows) - len(labeled)
    if empty:
        notes = [f"{plural(empty, 'row')} of {escape(file)} without a label left out", *notes]
    return column, labeled, notes, hashlib.sha256(content).hexdigest()


def _parsed(text: str, known: Sequence[str], file: str, id: str | None) -> tuple[str, list[Row], list[str]]:
    """What identifies samples: name, id (a number, or a name without its ending) or the column `id`; all rows, and notes."""
    table = parse_table(text, escape(file), NAMES if id is None else (*NAMES, normalize_name(id)))
    ids, named, labels, split = (table.column(words) for words in (("id", "imageid"), PATHS, LABELS, SPLITS))
    column = named if named is not None else ids
    if id is not None:
        others = (c for c in table.columns if c not in (labels, split))
        column = id if id in table.columns else column or next(others, None)
    rest = [c for c in table.columns if c not in (column, split)]
    notes = []
    if labels is None and column is not None and len(rest) == 1:
        (labels,) = rest
        notes.append(f"the labels are the column {escape(labels)} of {escape(file)}")
    if (
        column is None
        or (id is None and ids is not None and named is not None and normalize_name(named) in ("name", "path"))
        or labels is None
    ):
        raise DataError(f"the header of {escape(file)} is {escape(','.join(table.columns)) or 'empty'}", HEADER)
    place = {c: i for i, c in enumerate(table.columns)}
    cells = LabelParser(known)
    matches = [cells.label(decode_cp1252(row[place[labels]])) for _, row in table.rows]
    labels_of_rows = matches if all(label in known for label in matches if label) else normalize_numbers(matches)
    rows = []
    for (line, row), label in zip(table.rows, labels_of_rows, strict=True):
        word = (row[place[split]].strip() or "train") if split is not None else ""
        kind = exact_split(word) if word else ""
        if kind is None:
            raise DataError(f"{escape(file)}, line {line}: split is {escape(word)}, not train, val or test", HEADER)
        if row[place[column]].strip():
            rows.append(Row(line, row[place[column]].strip(), label or "", kind))
    rows, aside = _of_splits(rows)
    notes += (
        [f"{plural(aside, 'row')} of {escape(file)} left aside: the rows of test measure, and those of train train"]
        if aside
        else []
    )
    return id or ("id" if column == ids else "name"), rows, [*notes, *cells.notes()]


def _of_splits(rows: list[Row]) -> tuple[list[Row], int]:
    """The rows of train and test, and how many others there are. Without test rows, those of val are the test rows."""
    if not any(row.split == "test" for row in rows):
        rows = [replace(row, split="test") if row.split == "val" else row for row in rows]
    used = [row for row in rows if row.split in ("", "train", "test")]
    return used, len(rows) - len(used)


def of_windows(rows: list[Row], pool: Source, file: str) -> tuple[list[Row], list[str]]:
    """The rows with those that name a recording replaced by one for each of its windows in the pool, and a note on that."""
    windows = windows_of_recordings(pool.names)
    if not windows or pool.names is None:
        return rows, []
    exact = set(pool.names)
    whole = [row for row in rows if row.name not in exact]
    places = _by_name(whole, [*windows], "", file) if whole else []
    of = [*windows.values()]
    recordings = {row.line: of[at] for row, at in zip(whole, places, strict=True) if at is not None}
    out: list[Row] = []
    for row in rows:
        own = recordings.get(row.line)
        out += [row] if own is None else [replace(row, name=pool.names[i]) for i in own]
    count = plural(len(recordings), "recording")
    return out, [f"{count} of {escape(file)}: each label is that of all windows of the recording"] if recordings else []


def find(rows: list[Row], column: str, pool: Source, n_train: int, dataset: Dataset, file: str) -> Tensor:
    """Index of each row's sample in the pool of samples of `dataset`: (m,) int64. Raises DataError for unknown or repeated
    samples, and for those that the data set leaves out."""
    name, left_out, named = dataset.name, _left_out(dataset, pool), dataset.id is not None
    if named:
        matches = _by_identifier(rows, pool.names or (), dataset, file)
    else:
        matches = _ids(rows, pool, n_train, [*left_out]) if column == "id" else _by_name(rows, pool.names, name, file)
    unknown = torch.tensor([place is None for place in matches])
    if unknown.any():
        _refuse_left_out([row for row, place in zip(rows, matches, strict=True) if place is None], left_out, name, file)
        hint = f"an id is a number from 0 to {n_train - 1}"
        if named and pool.names is not None:
            few = listing(map(escape, pool.names[: min(2, len(pool))]), 2)
            hint = f"the identifiers of the column {escape(str(dataset.id))} are as in {few}"
        elif pool.names is not None:
            few = listing((escape(pool.names[i]) for i in range(min(2, len(pool)))), 2)
            hint = f"names are as in {few}; folders above and the extension may be left out" + (
                f", and {hint}" if column == "id" else ""
            )
        raise DataError(
            f"{escape(file)} names {plural(int(unknown.sum()), 'sample')} that {name} does not have, {examples(rows, unknown)}",
            hint,
        )
    first: dict[int, Row] = {}
    for row, place in zip(rows, matches, strict=True):
        assert place is not None
        before = first.setdefault(place, row)
        if before is not row:
            again = "with another label" if before.label != row.label else "a second time"
            raise DataError(
                f"{escape(file)}, line {row.line}: {escape(row.name)} of line {before.line} {again}",
                "leave one of the two lines out",
            )
    return torch.tensor([place for place in matches if place is not None], dtype=torch.int64)


def _left_out(dataset: Dataset, pool: Source) -> dict[str, str]:
    """Samples that exist and are in no split, with the reason: unreadable ones, and those of `dataset.exclude`."""
    reasons = {**dataset.details.get("bad", {}), **dataset.details.get("left_out_names", {})}
    present = set(pool.names or ()) if reasons else set()
    return {name: reason for name, reason in reasons.items() if name not in present}


def _refuse_left_out(rows: list[Row], left_out: Mapping[str, str], name: str, file: str) -> None:
    """DataError where the names of some rows are those of samples that the data set leaves out."""
    names = [*left_out]
    places = _by_name(rows, names, name, file)
    known = {row.name: left_out[names[place]] for row, place in zip(rows, places, strict=True) if place is not None}
    if known:
        raise DataError(
            f"{escape(file)} names {plural(len(known), 'sample')} that {name} leaves out: {format_examples(known)}",
            "remove these rows from the file of labels, or use these samples again",
        )


def _by_identifier(rows: list[Row], names: Sequence[str], dataset: Dataset, file: str) -> list[int | None]:
    """Indices of samples by the identifiers in the column `dataset.id`, None for an unknown one. DataError for one of several
    samples, of different files."""
    places: dict[str, int] = {}
    several = set()
    for place, name in enumerate(names):
        for written in {name, str(cell(name))}:  # as the data set and as files of sslcli write it
            if places.setdefault(written, place) != place:
                several.add(written)
    if row := next((row for row in rows if row.name in several), None):
        raise DataError(
            f"{escape(file)}, line {row.line}: {dataset.name} has more than one sample with the identifier {escape(row.name)}",
            f"the values of {escape(str(dataset.id))} differ within each file; here they must differ across files, too",
        )
    return [places.get(row.name) for row in rows]


def _number(text: str, n: int) -> int | None:
    return int(text) if text.isdecimal() and int(text) < n else None


def _ids(rows: list[Row], pool: Source, n_train: int, left_out: Sequence[str] = ()) -> list[int | None]:
    """Indices of samples by id: file names without extension if all ids match one, else indices into the training split; None for
    a sample that was left out, and for an unknown one."""
    if pool.names is not None:
        by_stem: dict[str, list[int | None]] = defaultdict(list)
        for place, full in [*enumerate(pool.names), *((None, name) for name in left_out)]:
            by_stem[stem(normalize_path(full).rpartition("/")[2])].append(place)
        matches = [
            by_stem.get(normalize_path(row.name), by_stem.get(stem(normalize_path(row.name)), [])) for row in rows
        ]
        if all(len(places) == 1 for places in matches):
            return [places[0] for places in matches]
    return [_number(row.name, n_train) for row in rows]


def _by_name(rows: list[Row], names: Sequence[str] | None, name: str, file: str) -> list[int | None]:
    """Indices of samples by name: the exact name, else a unique suffix of its path; None if there is no match."""
    if names is None:
        raise DataError(f"the samples of {name} have no names", f"{escape(file)} must have the columns id,label")
    exact = {full: place for place, full in enumerate(names)}
    ends, stems = defaultdict[str, list[tuple[str, str]]](list), defaultdict[str, list[tuple[str, str]]](list)
    for full in exact:
        path = normalize_path(full)
        for table, key in ((ends, path), (stems, stem(path))):
            table[key.rpartition("/")[2]].append((key, full))

    def matching_ends(table: dict[str, list[tuple[str, str]]], path: str) -> list[str]:
        matches = table.get(path.rpartition("/")[2], ())
        return [full for key, full in matches if f"/{key}".endswith(f"/{path}") or path.endswith(f"/{key}")]

    def candidates(path: str) -> list[str]:
        """Matches by name, then without the extension, then with another extension."""
        return (
            matching_ends(ends, path)
            or matching_ends(stems, path)
            or (matching_ends(stems, stem(path)) if is_image_name(path) else [])
        )

    common_folders = _common_folders(rows)
    out: list[int | None] = []
    for row in rows:
        path = os.path.normpath(row.name).replace(os.sep, "/")
        if path in exact or row.name in exact:
            out.append(exact[row.name if row.name in exact else path])
            continue
        path = normalize_path(row.name)
        matches = candidates(path) or (
            candidates(path[len(common_folders) :]) if common_folders else []
        )  # the files may have been in another folder
        if len(matches) > 1:
            raise DataError(
                f"{escape(file)}, line {row.line}: {escape(row.name)} may be {listing(map(escape, matches), 3)}",
                "give more of its path",
            )
        out.append(exact[matches[0]] if matches else None)
    return out


def _common_folders(rows: list[Row]) -> str:
    """Common folder prefix of all names, with a trailing /; "" if there is none."""
    folders = [normalize_path(row.name).split("/")[:-1] for row in rows]
    first, last = min(folders), max(folders)  # a prefix of these two is a prefix of all
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "/".join([*first[:n], ""])


def examples(rows: list[Row], which: Tensor) -> str:
    picked = [escape(row.name) for row, bad in zip(rows, which.tolist(), strict=True) if bad]
    return f"such as {listing(picked, 3)}"
