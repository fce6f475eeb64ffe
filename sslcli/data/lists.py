"""List files of images: `FILE.txt`, one path a line, or `FILE.csv` with a header: `path`, and where wanted `label`,
`split`, `group`. Relative paths are relative to the list file.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sslcli.data.layout import SPLITS, Files, Found
from sslcli.data.talk import count, shown
from sslcli.errors import DataError, RequestError, listing


@dataclass(frozen=True)
class Row:
    line: int
    name: str
    label: str | None = None
    split: str = "train"
    group: str | None = None


def from_list(path: str, label: str | None, notes: list[str]) -> Found:
    """The files that a list names. Raises RequestError for the list itself, DataError for what stands in it."""
    base = os.path.dirname(os.path.abspath(path))
    parts: dict[str, Files] = {}
    groups: dict[str, list[str]] = {}
    first: dict[str, Row] = {}  # by full path
    lost: dict[str, str] = {}
    repeated = 0
    for row in _rows(path, label):
        full = os.path.join(base, os.path.expanduser(row.name))
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
        try:
            size = os.stat(full).st_size
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            lost[row.name] = getattr(error, "strerror", None) or str(error)
            continue
        parts.setdefault(row.split, Files()).add(full, row.name, size, row.label)
        if row.group is not None:
            groups.setdefault(row.split, []).append(row.group)
    _require_some(path, base, parts, lost)
    _describe(parts, repeated, notes)
    for kind, members in groups.items():
        parts[kind].groups = members
    if "train" not in parts and "unlabelled" not in parts:
        raise DataError(f"{shown(path)} has no row of the split train; it has {', '.join(sorted(parts))}")
    parts.setdefault("train", Files())
    return Found(base, parts, {"layout": "list file", "missing": list(lost), "repeated": repeated}, lost)


def _require_some(path: str, base: str, parts: dict[str, Files], lost: dict[str, str]) -> None:
    if any(map(len, parts.values())):
        return
    if lost:
        raise DataError(
            f"none of the {count(len(lost), 'file')} named in {shown(path)} exists, "
            f"such as {shown(os.path.join(base, next(iter(lost))))}",
            f"relative paths are relative to the list's own folder, {shown(base)}",
        )
    raise DataError(f"{shown(path)} names no file", "one path a line, or a CSV with the header path,label")


def _describe(parts: dict[str, Files], repeated: int, notes: list[str]) -> None:
    if repeated:
        notes.append(f"{count(repeated, 'repeated line')} of the list left out")
    labels = [c for kind, f in parts.items() if kind != "unlabelled" for c in f.classes]
    classes = {c for c in labels if c is not None}
    said = count(len(classes), "class", "classes") if classes else "no labels"
    bare = sum(c is None for c in labels) if classes else 0
    said += f", {bare:,} without label" if bare else ""
    notes.append(f"list file: {count(sum(map(len, parts.values())), 'image')}, {said}")


def _rows(path: str, label: str | None) -> Iterator[Row]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _csv_rows(file, path, label) if path.lower().endswith(".csv") else _txt_rows(file)
    except csv.Error as error:
        raise DataError(f"{shown(path)} is no CSV file: {error}") from error
    except OSError as error:
        raise RequestError(f"{shown(path)} cannot be read: {error.strerror}") from error


def _txt_rows(file: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        name = line.rstrip("\r\n")
        if name.strip():
            yield Row(number, name)


def _csv_rows(file: Iterable[str], path: str, label: str | None) -> Iterator[Row]:
    reader = csv.DictReader(file, strict=True)
    columns = [c.strip() for c in reader.fieldnames or []]
    reader.fieldnames = columns
    column = _label_column(columns, path, label)
    for row in reader:
        name = row.get("path")
        if None in row or None in row.values():
            raise DataError(
                f"{shown(path)}, line {reader.line_num}: has not the {len(columns)} columns of the header",
                f"mend that line; each wants {', '.join(columns)} (a comma in a name goes in double quotes)",
            )
        if not name:
            continue
        kind = (row.get("split") or "train").strip().lower()
        if kind not in SPLITS:
            raise DataError(
                f"{shown(path)}, line {reader.line_num}: split is {shown(kind)}, "
                "not one of train, val, test, unlabelled"
            )
        yield Row(reader.line_num, name, (row.get(column) or "").strip() or None, SPLITS[kind], row.get("group"))


def _label_column(columns: list[str], path: str, label: str | None) -> str:
    """The column of the labels ("label" where none is asked for); checks the header."""
    if "path" not in columns:
        raise DataError(
            f"{shown(path)} has no column named path; its header is {shown(','.join(columns)) or 'empty'}",
            "the first line must be path,label (and, where wanted, split and group), with commas between",
        )
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise DataError(f"{shown(path)} has two columns named {shown(twice[0])}", "give one of them another name")
    if label in ("auto", None, "none"):
        return "label"
    if label not in columns:
        raise RequestError(
            f"dataset.label={shown(str(label))} is no column of {shown(path)}",
            f"columns: {listing(map(shown, columns))}",
        )
    return str(label)
