"""Read the recordings of a file or a folder, by its ending."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.files import array_file
from sslcli.data.folders.paths import is_hidden, require_regular
from sslcli.data.folders.split_names import exact_split
from sslcli.data.recordings.archive import read_arff, read_ts
from sslcli.data.recordings.arrays import read_arrays
from sslcli.data.recordings.long import is_long, read_long
from sslcli.data.recordings.recordings import Columns, Recordings, stack_channels
from sslcli.data.recordings.table import open_table
from sslcli.data.recordings.times import TimeFacts
from sslcli.data.recordings.wide import read_wide
from sslcli.data.tables.find import COMPRESSED, stem
from sslcli.errors import DataError, RequestError, listing

TABLES = (".tsv", ".csv", ".parquet", ".pq")
ENDINGS = (".ts", ".arff", *TABLES)
EXPECTED = "series in an array file (.npz, .npy, .pt), a table (.csv, .tsv, .parquet), a .ts or .arff file, or a folder of them"
TRAIN = re.compile(r"train(?=[^a-z]|$)", re.IGNORECASE)


def is_series_file(name: str) -> bool:
    return name.lower().endswith(array_file.SUFFIXES) or stem(name, ENDINGS) is not None


def read_recordings(path: str, layout: str, wish: Columns, notes: list[str]) -> Recordings:
    """Raises RequestError for the path and the columns that the user names, DataError for the contents of the files."""
    found = _read(path, layout, wish, notes)
    notes += found.times.notes()
    return _without_val(found, notes)


def _without_val(found: Recordings, notes: list[str]) -> Recordings:
    """Validation recordings are the test split where there is no other; else they are not used. Array files do the same."""
    if "val" in found.parts and "test" not in found.parts:
        every: tuple[dict[str, Any], ...] = (found.parts, found.y, found.names)
        for fields in every:
            if "val" in fields:
                fields["test"] = fields.pop("val")
        notes.append("val is the held-out split")
    elif "val" in found.parts:
        n = len(found.parts.pop("val"))
        found.y.pop("val", None)
        found.names.pop("val", None)
        notes.append(f"val: {plural(n, 'series', 'series')} not used, because there is a test split")
    return found


def _read(path: str, layout: str, wish: Columns, notes: list[str]) -> Recordings:
    if os.path.isdir(path):
        return _read_folder(path, layout, wish, notes)
    if path.lower().endswith(array_file.SUFFIXES):
        return read_arrays(path, layout, wish, notes)
    if stem(path, ENDINGS) is None:
        raise RequestError(f"{escape(path)} holds no series: expected {EXPECTED}")
    files = {"train": path}
    if wish.test not in ("auto", "none"):
        other = os.path.join(os.path.dirname(path), wish.test)
        files["test"] = next((p for p in (wish.test, other) if os.path.isfile(p)), "")
        if not files["test"]:
            raise RequestError(f"dataset.test: there is no file {escape(wish.test)}", "dataset.test=none")
    elif wish.test == "auto" and (other_ := _test_file(path)) is not None:
        files["test"] = other_
        notes.append(
            f"{escape(os.path.basename(other_))} beside it is the test split (dataset.test=none leaves it out)"
        )
    return _read_splits(files, wish, notes)


def _test_file(path: str) -> str | None:
    """`X_TEST.ts` beside `X_TRAIN.ts`."""
    folder, name = os.path.split(path)
    found = list(TRAIN.finditer(name))
    if not found:
        return None
    at = found[-1]
    word = "TEST" if at[0].isupper() else "Test" if at[0][0].isupper() else "test"
    other = os.path.join(folder, name[: at.start()] + word + name[at.end() :])
    return other if os.path.isfile(other) else None


def _read_splits(files: dict[str, str], wish: Columns, notes: list[str]) -> Recordings:
    """The recordings of several files, each of which is a split."""
    found = Recordings({})
    for part, path in files.items():
        one = _read_file(path, wish, notes)
        if "train" not in one.parts or (len(one.parts) > 1 and len(files) > 1):
            raise DataError(f"{escape(path)} has a column of splits, but is a split itself", "dataset.test=none")
        for own, recordings in one.parts.items():
            found.parts[part if own == "train" else own] = recordings
        for own, y in one.y.items():
            found.y[part if own == "train" else own] = y
        found.times.add(one.times)
        for own, names in one.names.items():
            found.names[part if own == "train" else own] = names
        if part == "train":
            found.groups, found.channels = one.groups, one.channels
        elif one.channels != found.channels:
            raise DataError(
                f"{escape(path)} has the channels {listing(map(escape, one.channels), 6)}, but train has "
                f"{listing(map(escape, found.channels), 6)}",
                "dataset.drop=[NAME] leaves a column out",
            )
    return found


def _read_file(path: str, wish: Columns, notes: list[str]) -> Recordings:
    require_regular(path)
    plain = next((path[: -len(c)] for c in COMPRESSED if path.lower().endswith(c)), path).lower()
    if plain.endswith((".ts", ".arff")) and plain != path.lower():
        raise RequestError(f"{escape(path)} is compressed", "unpack it first")
    if plain.endswith(".ts"):
        return read_ts(path)
    if plain.endswith(".arff"):
        return read_arff(path)
    file, header = open_table(path)
    if header and is_long(file.columns, wish):
        return read_long(file, wish, notes)
    if not header and wish.form == "long":
        raise DataError(
            f"{escape(path)} has no header, which a long table needs", "add a first line with the names of its columns"
        )
    return read_wide(file, header, wish, notes)


def _read_folder(folder: str, layout: str, wish: Columns, notes: list[str]) -> Recordings:
    names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    if any(name.lower().endswith(array_file.SUFFIXES) for name in names):
        return read_arrays(folder, layout, wish, notes)
    for ending in ENDINGS:
        stems = {
            stem(name, (ending,)): os.path.join(folder, name) for name in names if stem(name, (ending,)) is not None
        }
        splits = {exact_split(str(s).rsplit("_", 1)[-1]): path for s, path in stems.items()}
        if {"train", "test"} <= splits.keys() and (len(stems) == 2 or set(map(str, stems)) <= {"train", "test", "val"}):
            return _read_splits({part: splits[part] for part in ("train", "test")}, wish, notes)
    return _read_each(folder, wish, notes)


def _read_each(folder: str, wish: Columns, notes: list[str]) -> Recordings:
    """A folder of tables, each of which is a recording; its folders are splits and classes."""
    files = sorted(
        os.path.relpath(os.path.join(at, name), folder)
        for at, _, names in os.walk(folder)
        for name in names
        if not is_hidden(name) and stem(name, TABLES) is not None
    )
    if not files:
        holds = listing(map(escape, sorted(os.listdir(folder))), 6) or "nothing"
        raise DataError(f"{escape(folder)} has no series: it holds {holds}", f"expected {EXPECTED}")
    alone = replace(wish, form="long", label="none" if wish.label == "auto" else wish.label)
    named: list[dict[str, np.ndarray]] = []
    parts, labels, recordings, about, times = [], [], list[str](), list[str](), TimeFacts()
    for name in files:
        part, label = _split_and_class(name.split(os.sep)[:-1])
        one = _read_file(os.path.join(folder, name), alone, about)
        times.add(one.times)
        for i, recording in enumerate(one.parts.get("train", [])):
            named.append(dict(zip(one.channels, recording, strict=True)))
            parts.append(part)
            labels.append(label)
            own = f":{one.names['train'][i]}" if "train" in one.names else ""
            recordings.append(name.replace(os.sep, "/") + own)
    stacked, channels = stack_channels(named, escape(folder), notes)
    notes += [f"{plural(len(files), 'file')}, each a recording", *dict.fromkeys(about)]
    found = _by_split(stacked, parts, labels, recordings, channels)
    found.times = times
    return found


def _split_and_class(folders: Sequence[str]) -> tuple[str, str]:
    split = next((found for name in folders if (found := exact_split(name))), "train")
    classes = [name for name in folders if exact_split(name) is None]
    return split, classes[-1] if classes else ""


def _by_split(
    stacked: list[np.ndarray], parts: list[str], labels: list[str], names: list[str], channels: Sequence[str]
) -> Recordings:
    found = Recordings({}, channels=tuple(channels))
    if "train" not in parts:
        parts = ["train"] * len(parts)
    for part in dict.fromkeys(["train", *parts]):
        chosen = [i for i, own in enumerate(parts) if own == part]
        found.parts[part] = [stacked[i] for i in chosen]
        found.names[part] = [names[i] for i in chosen]
        if any(labels) and part != "unlabelled":
            found.y[part] = np.array([labels[i] for i in chosen])
    return found
