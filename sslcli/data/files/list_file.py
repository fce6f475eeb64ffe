"""List files of images: `FILE.txt`, one path a line, or `FILE.csv` (`.tsv`) with a header: `path`, and where wanted
`label`, `split`, `group`. Relative paths are relative to the list file. See `tables` and `spelling` for what else is read.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sslcli.console import plural
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
from sslcli.data.notify import shown
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
    """The files that a list names. Raises RequestError for the list itself, DataError for what stands in it."""
    base = os.path.dirname(os.path.abspath(path))
    parts: dict[str, FileList] = {}
    groups: dict[str, list[str]] = {}
    first: dict[str, Row] = {}  # by full path
    lost: dict[str, str] = {}
    repeated = 0
    disk = FileLookup(base)
    for row in _rows(path, label, disk, notes):
        try:
            full, size = disk.find(row.name)
        except DataError as error:
            raise DataError(f"{shown(path)}, line {row.line}: {error.message}", error.hint) from error
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            lost[row.name] = getattr(error, "strerror", None) or str(error)
            continue
        before = first.setdefault(full, row)
        if before is not row:
            if (before.label, before.split, before.group) != (row.label, row.split, row.group):
                raise DataError(
                    f"{shown(path)}, line {row.line}: {shown(row.name)} stands in line {before.line} already, "
                    "with another label, split or group",
                    "leave one of the two lines out",
                )
            repeated += 1
            continue
        parts.setdefault(row.split, FileList()).add(full, row.name, size, row.label)
        if row.group is not None:
            groups.setdefault(row.split, []).append(row.group)
    _require_files(path, base, parts, lost)
    notes += disk.notes()
    _describe(parts, repeated, notes)
    for kind, members in groups.items():
        parts[kind].groups = members
    if "train" not in parts and "unlabelled" not in parts:
        raise DataError(f"{shown(path)} has no row of the split train; it has {', '.join(sorted(parts))}")
    parts.setdefault("train", FileList())
    return FolderContents(base, parts, {"layout": "list file", "missing": list(lost), "repeated": repeated}, lost)


def _require_files(path: str, base: str, parts: dict[str, FileList], lost: dict[str, str]) -> None:
    if any(map(len, parts.values())):
        return
    if lost:
        name = next(iter(lost))
        windows = "\\" in name or name[1:2] == ":"
        raise DataError(
            f"none of the {plural(len(lost), 'file')} named in {shown(path)} exists, "
            f"such as {shown(os.path.join(base, name))}",
            f"relative paths are relative to the list's own folder, {shown(base)}"
            + ("; these are addresses: fetch the files first" * ("://" in name))
            + ("; these are paths of a Windows drive: leave the drive and the folders above that one out" * windows),
        )
    raise DataError(f"{shown(path)} names no file", "one path a line, or a CSV with the header path,label")


def _describe(parts: dict[str, FileList], repeated: int, notes: list[str]) -> None:
    if repeated:
        notes.append(f"{plural(repeated, 'repeated line')} of the list left out")
    labels = [c for kind, f in parts.items() if kind != "unlabelled" for c in f.classes]
    classes = {c for c in labels if c is not None}
    said = plural(len(classes), "class", "classes") if classes else "no labels"
    bare = sum(c is None for c in labels) if classes else 0
    said += f", {bare:,} without label" if bare else ""
    notes.append(f"list file: {plural(sum(map(len, parts.values())), 'image')}, {said}")


def _rows(path: str, label: str | None, disk: FileLookup, notes: list[str]) -> Iterator[Row]:
    try:
        with open(path, "rb") as file:
            text = decode_text(file.read())
    except OSError as error:
        raise RequestError(f"{shown(path)} cannot be read: {error.strerror}") from error
    if path.lower().endswith(".txt") and not has_header(text):
        return _txt_rows(text, disk)
    return _table_rows(parse_table(text, shown(path)), path, label, notes)


def _txt_rows(text: str, disk: FileLookup) -> Iterator[Row]:
    """One path a line; or a path, a space (tab, comma) and a label, where the first line is that."""
    lines = [
        (n, line) for n, raw in enumerate(io.StringIO(text, newline=None), 1) if (line := raw.rstrip("\n")).strip()
    ]
    pair = PAIR.fullmatch(lines[0][1]) if lines and not disk.has(lines[0][1]) else None
    labelled = pair is not None and disk.has(pair[1])
    for number, line in lines:
        found = PAIR.fullmatch(line) if labelled else None
        yield Row(number, line) if found is None else Row(number, found[1], found[2])


def _table_rows(table: Table, path: str, label: str | None, notes: list[str]) -> Iterator[Row]:
    names = table.column(PATHS)
    if names is None:
        raise DataError(
            f"{shown(path)} has no column named path; its header is {shown(','.join(table.columns)) or 'empty'}",
            "the first line must be path,label (and, where wanted, split and group)",
        )
    labels, split, group = _label_column(table, path, label), table.column(SPLITS), table.column(GROUPS)
    used = {"path": names, "label": labels, "split": split, "group": group}
    if other := [f"{shown(c)} as {word}" for word, c in used.items() if c is not None and c != word]:
        notes.append(f"columns of the list: {', '.join(other)}")
    rest = [c for c in table.columns if c and c not in used.values()]
    if labels is None and label != "none" and rest:
        some = listing(map(shown, rest), 6)
        notes.append(f"no column of labels; not read: {some} (dataset.label=NAME takes one as the label)")
    place = {c: i for i, c in enumerate(table.columns)}
    cells = LabelParser()
    found = [None if labels is None else cells.label(decode_cp1252(row[place[labels]])) for _, row in table.rows]
    notes += cells.notes()
    for (line, row), cls in zip(table.rows, normalize_numbers(found), strict=True):
        name = row[place[names]]
        if not name.strip():
            continue
        word = (row[place[split]].strip() if split is not None else "") or "train"
        kind = exact_split(word)
        if kind is None:
            raise DataError(
                f"{shown(path)}, line {line}: split is {shown(word)}, not one of train, val, test, unlabelled"
            )
        yield Row(line, name, cls, kind, row[place[group]] if group is not None else None)


def _label_column(table: Table, path: str, label: str | None) -> str | None:
    """The column of the labels, "label" or the like where none is asked for; None where there is none."""
    if label in ("auto", None, "none"):
        return table.column(LABELS)
    found = str(label) if str(label) in table.columns else table.column([normalize_name(str(label))])
    if found is None:
        raise RequestError(
            f"dataset.label={shown(str(label))} is no column of {shown(path)}",
            f"columns: {listing(map(shown, table.columns))}",
        )
    return found
