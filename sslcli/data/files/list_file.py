"""List files of images: `FILE.txt` with one path per line, or `FILE.csv` (`.tsv`) with the column `path` and optionally
`label`, `split` and `group`. Relative paths are relative to the list file. `csv_table.py` and `file_names.py` describe the
accepted dialects and spellings.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sslcli.console import escape, plural
from sslcli.data.files.csv_table import (
    GROUPS,
    LABELS,
    PATHS,
    SPLITS,
    Table,
    decode_cp1252,
    decode_text,
    has_header,
    normalize_name,
    parse_table,
)
from sslcli.data.files.file_names import FileLookup
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.split_names import exact_split
from sslcli.errors import DataError, RequestError, listing

PAIR = re.compile(r"(.*[^\s,;])[ \t,;]+(\S+)\s*")  # a path and a label


@dataclass(frozen=True)
class Row:
    line: int
    name: str
    label: str | None = None
    split: str = "train"
    group: str | None = None


def read_list(path: str, label: str | None, notes: list[str]) -> FolderContents:
    """The files that a list names. Raises RequestError for the list itself, DataError for its contents."""
    base = os.path.dirname(os.path.abspath(path))
    parts: dict[str, FileList] = {}
    groups: dict[str, list[str]] = {}
    first: dict[str, Row] = {}  # by full path
    missing: dict[str, str] = {}
    repeated = 0
    lookup = FileLookup(base)
    for row in _rows(path, label, lookup, notes):
        try:
            full, size = lookup.find(row.name)
        except DataError as error:
            raise DataError(f"{escape(path)}, line {row.line}: {error.message}", error.hint) from error
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            missing[row.name] = getattr(error, "strerror", None) or str(error)
            continue
        before = first.setdefault(full, row)
        if before is not row:
            if (before.label, before.split, before.group) != (row.label, row.split, row.group):
                raise DataError(
                    f"{escape(path)}, line {row.line}: {escape(row.name)} is already in line {before.line}, "
                    "with another label, split or group",
                    "remove one of the two lines",
                )
            repeated += 1
            continue
        parts.setdefault(row.split, FileList()).add(full, row.name, size, row.label)
        if row.group is not None:
            groups.setdefault(row.split, []).append(row.group)
    _require_files(path, base, parts, missing)
    notes += lookup.notes()
    _describe(parts, repeated, notes)
    for kind, members in groups.items():
        parts[kind].groups = members
    if "train" not in parts and "unlabelled" not in parts:
        raise DataError(f"{escape(path)} has no row of the split train, only of {', '.join(sorted(parts))}")
    parts.setdefault("train", FileList())
    return FolderContents(base, parts, {"layout": "list file", "missing": list(missing), "repeated": repeated}, missing)


def _require_files(path: str, base: str, parts: dict[str, FileList], missing: dict[str, str]) -> None:
    if any(map(len, parts.values())):
        return
    if missing:
        name = next(iter(missing))
        windows = "\\" in name or name[1:2] == ":"
        raise DataError(
            f"none of the {plural(len(missing), 'file')} named in {escape(path)} exists, "
            f"such as {escape(os.path.join(base, name))}",
            f"relative paths are relative to the folder of the list, {escape(base)}"
            + ("; these are URLs: download the files first" * ("://" in name))
            + ("; these are paths on a Windows drive: remove the drive and the folders above this one" * windows),
        )
    raise DataError(
        f"{escape(path)} names no file", "write one path per line, or a CSV file with the header path,label"
    )


def _describe(parts: dict[str, FileList], repeated: int, notes: list[str]) -> None:
    if repeated:
        notes.append(f"{plural(repeated, 'repeated line')} of the list ignored")
    labels = [c for kind, f in parts.items() if kind != "unlabelled" for c in f.classes]
    classes = {c for c in labels if c is not None}
    summary = plural(len(classes), "class", "classes") if classes else "no labels"
    bare = sum(c is None for c in labels) if classes else 0
    summary += f", {bare:,} without label" if bare else ""
    notes.append(f"list file: {plural(sum(map(len, parts.values())), 'image')}, {summary}")


def _rows(path: str, label: str | None, lookup: FileLookup, notes: list[str]) -> Iterator[Row]:
    try:
        with open(path, "rb") as file:
            text = decode_text(file.read())
    except OSError as error:
        raise RequestError(f"{escape(path)} cannot be read: {error.strerror}") from error
    if path.lower().endswith(".txt") and not has_header(text):
        return _txt_rows(text, lookup)
    return _table_rows(parse_table(text, escape(path)), path, label, notes)


def _txt_rows(text: str, lookup: FileLookup) -> Iterator[Row]:
    """One path per line; or a path, a space (tab, comma) and a label, where the first line has that form."""
    lines = [
        (n, line) for n, raw in enumerate(io.StringIO(text, newline=None), 1) if (line := raw.rstrip("\n")).strip()
    ]
    pair = PAIR.fullmatch(lines[0][1]) if lines and not lookup.has(lines[0][1]) else None
    labeled = pair is not None and lookup.has(pair[1])
    for number, line in lines:
        match = PAIR.fullmatch(line) if labeled else None
        yield Row(number, line) if match is None else Row(number, match[1], match[2])


def _table_rows(table: Table, path: str, label: str | None, notes: list[str]) -> Iterator[Row]:
    names = table.column(PATHS)
    if names is None:
        raise DataError(
            f"{escape(path)} has no column named path; its header is {escape(','.join(table.columns)) or 'empty'}",
            "the first line must be path,label (optionally with split and group)",
        )
    labels, split, group = _label_column(table, path, label), table.column(SPLITS), table.column(GROUPS)
    used = {"path": names, "label": labels, "split": split, "group": group}
    if other := [f"{escape(c)} as {word}" for word, c in used.items() if c is not None and c != word]:
        notes.append(f"columns of the list: {', '.join(other)}")
    rest = [c for c in table.columns if c and c not in used.values()]
    if labels is None and label != "none" and rest:
        some = listing(map(escape, rest), 6)
        notes.append(f"no label column; columns not read: {some} (dataset.label=NAME selects one as the label)")
    place = {c: i for i, c in enumerate(table.columns)}
    cells = LabelParser()
    labels_by_row = [
        None if labels is None else cells.label(decode_cp1252(row[place[labels]])) for _, row in table.rows
    ]
    notes += cells.notes()
    for (line, row), cls in zip(table.rows, normalize_numbers(labels_by_row), strict=True):
        name = row[place[names]]
        if not name.strip():
            continue
        word = (row[place[split]].strip() if split is not None else "") or "train"
        kind = exact_split(word)
        if kind is None:
            raise DataError(
                f"{escape(path)}, line {line}: expected one of train, val, test, unlabelled as the split, got {escape(word)}"
            )
        yield Row(line, name, cls, kind, row[place[group]] if group is not None else None)


def _label_column(table: Table, path: str, label: str | None) -> str | None:
    """The label column: the one named by dataset.label, else \"label\" or a synonym; None where there is none."""
    if label in ("auto", None, "none"):
        return table.column(LABELS)
    column = str(label) if str(label) in table.columns else table.column([normalize_name(str(label))])
    if column is None:
        raise RequestError(
            f"dataset.label={escape(str(label))} is not a column of {escape(path)}",
            f"columns: {listing(map(escape, table.columns))}",
        )
    return column
