"""The `.ts` files of sktime and the `.arff` files of Weka, as the UCR and UEA archives distribute them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

import numpy as np

from sslcli.console import escape
from sslcli.data.recordings.recordings import Recordings
from sslcli.data.recordings.table import LARGEST
from sslcli.errors import DataError, RequestError

MISSING = frozenset({"?", "nan", ""})


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file in UTF-8 with their numbers, without empty ones and comments (# and %). DataError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and text[0] not in "#%":
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataError(f"{escape(path)} is not UTF-8 text: {error.reason}", "save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{escape(path)} cannot be read: {error.strerror}") from error


def read_ts(path: str) -> Recordings:
    """Channels are divided by colons, values by commas; the label is the last field."""
    lines = numbered_lines(path)
    facts: dict[str, list[str]] = {}
    for _, line in lines:
        if line.lower() == "@data":
            break
        if not line.startswith("@"):
            raise DataError(
                f"{escape(path)} is not a .ts file: expected lines with @ before @data", "see sktime's format"
            )
        name, *words = line[1:].split() or [""]
        facts[name.lower()] = [word.lower() for word in words]
    if "true" in facts.get("timestamps", [])[:1]:
        raise RequestError(
            f"{escape(path)} has time stamps, which are not read", "write it as CSV with id, time and channels"
        )
    labeled = any("true" in facts.get(key, [])[:1] for key in ("classlabel", "targetlabel"))
    recordings, labels = [], []
    for number, line in lines:
        fields = line.split(":")
        if labeled:
            labels.append(fields.pop().strip())
        recordings.append(_stack([_values(text, path, number) for text in fields], path, number))
    return _found(recordings, labels, path)


def read_arff(path: str) -> Recordings:
    """Series of one channel as one attribute for each step, or of several as a relational attribute, whose lines are channels. The
    label is the last attribute, where that is nominal or numeric after a relational one, or named class, label or target."""
    names: list[tuple[str, str]] = []
    lines = numbered_lines(path)
    depth = 0
    for _, line in lines:
        lower = line.lower()
        if lower == "@data":
            break
        if lower.startswith("@attribute") and not depth:
            match = re.match(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.*)", line, re.IGNORECASE)
            if match is None:
                raise DataError(f"{escape(path)}: {escape(line[:80])} is not an attribute")
            names.append((match[1].strip("'\""), match[2].strip().lower()))
            depth += names[-1][1].startswith("relational")
        elif lower.startswith("@end"):
            depth = 0
    if not names:
        raise DataError(f"{escape(path)} is not an .arff file: it has no attributes")
    relational = names[0][1].startswith("relational")
    last_name, last_type = names[-1]
    labeled = len(names) > 1 and (
        relational or last_type.startswith("{") or last_name.lower() in ("class", "label", "target")
    )
    recordings, labels = [], []
    for number, line in lines:
        row = next(csv.reader([line], quotechar="'" if line[0] == "'" else '"', skipinitialspace=True))
        if labeled and row:
            labels.append(row.pop().strip().strip("'\""))
        expected = 1 if relational else len(names) - labeled
        if len(row) != expected:
            raise DataError(
                f"{escape(path)}, line {number}: expected {expected + labeled} values, got {len(row) + labeled}"
            )
        channels = re.split(r"\\n|\n", row[0]) if relational else [",".join(row)]
        recordings.append(_stack([_values(text, path, number) for text in channels], path, number))
    return _found(recordings, labels, path)


def _values(text: str, path: str, number: int) -> np.ndarray:
    cells = ["nan" if cell.strip().lower() in MISSING else cell for cell in text.split(",")]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        bad = next(cell for cell in cells if not _is_number(cell))
        raise DataError(f"{escape(path)}, line {number}: {escape(bad.strip()[:40])!r} is not a number") from None
    if (np.abs(values) > LARGEST).any():
        raise DataError(
            f"{escape(path)}, line {number}: a value that is infinite or beyond 1e38", "use ? for missing values"
        )
    return values.astype(np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _stack(channels: list[np.ndarray], path: str, number: int) -> np.ndarray:
    """(C, T); shorter channels are missing at their end."""
    if not channels:
        raise DataError(f"{escape(path)}, line {number}: no values")
    out = np.full((len(channels), max(map(len, channels))), np.nan, np.float32)
    for row, values in zip(out, channels, strict=True):
        row[: len(values)] = values
    known = np.flatnonzero(~np.isnan(out).all(axis=0))
    return out[:, : int(known[-1]) + 1] if len(known) else out


def _found(recordings: list[np.ndarray], labels: list[str], path: str) -> Recordings:
    if not recordings:
        raise DataError(f"{escape(path)} has no series after @data")
    return Recordings({"train": recordings}, {"train": np.array(labels)} if labels else {})
