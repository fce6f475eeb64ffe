"""Long tables: a row for each step, with columns for the time, the channels and, of several recordings, the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sslcli.console import escape
from sslcli.data.folders.split_names import exact_split
from sslcli.data.recordings.recordings import LABELS, Columns, Recordings, find_column, one_value
from sslcli.data.recordings.table import parse_times, read_columns, require_columns
from sslcli.data.recordings.times import Grid, TimeFacts, sort_by_time
from sslcli.data.tables.columns import TableFile
from sslcli.errors import DataError, listing

TIMES = ("time", "timestamp", "date", "datetime", "t")
IDS = ("id", "series", "series_id", "recording", "recording_id", "sample", "sample_id", "case", "case_id", "unique_id")


def is_long(columns: Sequence[str], wish: Columns) -> bool:
    """Whether a table with these columns is read as a long one: it has a column of times, or of recordings."""
    if wish.form != "auto":
        return wish.form == "long"
    lower = {column.strip().lower() for column in columns}
    return wish.id is not None or wish.time is not None or bool(lower & {*TIMES, *IDS})


def read_long(file: TableFile, wish: Columns, notes: list[str]) -> Recordings:
    """The recordings of a table, in the order in which they appear, each in the order of its times.

    Missing steps of a regular recording become NaN. A column that names the split, or the group, and the label have one value in
    each recording. DataError, with the line, for two rows of a recording with the same time."""
    columns = [name for name in file.columns if name not in wish.drop]
    require_columns(wish.drop, file.columns, "drop", file.what)
    time = find_column(wish.time, TIMES, columns, "time", file.what)
    id = find_column(wish.id, IDS, columns, "id", file.what, [time])
    group = wish.named_group and find_column(wish.named_group, (), columns, "group", file.what)
    label = None
    if wish.label != "none":
        known = LABELS if id is not None else ()
        label = find_column(wish.named_label, known, columns, "label", file.what, [time, id, *wish.channels])
    split = find_column(None, ("split",), columns, "split", file.what)
    texts = [name for name in (time, id, group, label, split) if name is not None]
    channels = _channels(columns, texts, wish, file, notes)
    data = read_columns(file, channels, texts)
    rows = _rows_of(data, id)
    if (
        label is not None
        and wish.named_label is None
        and not wish.channels
        and any(one_value(data[label][r]) is None for r in rows)
    ):
        notes.append(f"the column {escape(label)} changes within a recording: it is a channel (dataset.label)")
        channels.append(label)
        data |= read_columns(file, [label], [])
        label = None
    if not channels:
        raise DataError(f"{file.what} has no columns of values beside {', '.join(map(escape, texts))}")
    if time is not None:
        rows, grids, facts = _in_time(rows, data, time, id, file)
    else:
        grids, facts = [None] * len(rows), TimeFacts()
    kept = [_values(data, channels, r, grid) for r, grid in zip(rows, grids, strict=True)]
    parts = (
        _of_rows(data, split, rows, file, lambda text: exact_split(text) or "train") if split else ["train"] * len(rows)
    )
    labels = _of_rows(data, label, rows, file) if label else None
    groups = _of_rows(data, group, rows, file) if group else None
    names = _of_rows(data, id, rows, file) if id else None
    found = _assemble(kept, parts, labels, names, groups, channels)
    found.times = facts
    return found


def _channels(columns: list[str], texts: list[str], wish: Columns, file: TableFile, notes: list[str]) -> list[str]:
    """The columns of values: those that the user, or a trained encoder, names, or all but `texts`."""
    if not wish.channels:
        return [name for name in columns if name not in texts]
    if absent := [name for name in wish.channels if name not in columns]:
        raise DataError(
            f"{file.what} lacks the channel {listing(map(escape, absent), 4)}; its columns are {listing(map(escape, columns), 8)}"
        )
    if ignored := [name for name in columns if name not in (*texts, *wish.channels)]:
        notes.append(f"columns that are not read: {listing(map(escape, ignored), 6)}")
    return list(wish.channels)


def _rows_of(data: dict[str, np.ndarray], id: str | None) -> list[np.ndarray]:
    """The rows (n,) of each recording, in the order in which recordings appear."""
    if id is None:
        return [np.arange(len(data[""]))]
    _, first, codes = np.unique(data[id], return_index=True, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return [groups[i] for i in np.argsort(first)]


def _in_time(
    rows: list[np.ndarray], data: dict[str, np.ndarray], time: str, id: str | None, file: TableFile
) -> tuple[list[np.ndarray], list[Grid | None], TimeFacts]:
    """The rows of each recording by time, and the place of each on a regular grid."""
    times = parse_times(data[time], data[""], time, file.what)
    dates = not data[time][0].lstrip("+-").replace(".", "", 1).isdigit()
    facts = TimeFacts(dates=dates)
    out: list[np.ndarray] = []
    grids: list[Grid | None] = []
    for r in rows:
        order, grid, twice = sort_by_time(times[r])
        if twice is not None:
            raise _twice(data, time, id, r[twice[0]], r[twice[1]], file)
        facts.unsorted += not bool((order == np.arange(len(r))).all())
        out.append(r[order])
        grids.append(grid)
        if grid is not None:
            facts.irregular += not grid.regular
            facts.missing += grid.missing
            facts.steps.append(grid.step)
    return out, grids, facts


def _twice(data: dict[str, np.ndarray], time: str, id: str | None, i: int, j: int, file: TableFile) -> DataError:
    of = f" of the recording {escape(str(data[id][i]))}" if id is not None else ""
    where = " and ".join(str(int(line)) for line in sorted((data[""][i], data[""][j])))
    hint = (
        "dataset.id=COLUMN names the column of recordings, if there are several"
        if id is None
        else "leave one of them out"
    )
    return DataError(f"{file.what}, lines {where}: two rows{of} have the time {escape(str(data[time][i]))}", hint)


def _values(data: dict[str, np.ndarray], channels: Sequence[str], rows: np.ndarray, grid: Grid | None) -> np.ndarray:
    """(C, T) float32; NaN at missing steps."""
    if grid is None or not grid.missing:
        return np.stack([data[name][rows] for name in channels])
    out = np.full((len(channels), int(grid.places[-1]) + 1), np.nan, np.float32)
    for c, name in enumerate(channels):
        out[c, grid.places] = data[name][rows]
    return out


def _of_rows(
    data: dict[str, np.ndarray],
    name: str,
    rows: list[np.ndarray],
    file: TableFile,
    parse: Callable[[str], str] = str,
) -> list[str]:
    """The value of a column for each recording. DataError where it changes within one."""
    out = []
    for r in rows:
        value = one_value(data[name][r])
        if value is None:
            changed = r[(data[name][r] != data[name][r[0]]).argmax()]
            raise DataError(
                f"{file.what}, line {int(data[''][changed])}: the column {escape(name)} changes within a recording",
                "dataset.id=COLUMN names the column of recordings",
            )
        out.append(parse(value))
    return out


def _assemble(
    kept: list[np.ndarray],
    parts: list[str],
    labels: list[str] | None,
    names: list[str] | None,
    groups: list[str] | None,
    channels: Sequence[str],
) -> Recordings:
    found = Recordings({}, channels=tuple(channels))
    for part in dict.fromkeys(["train", *parts]):
        chosen = [i for i, own in enumerate(parts) if own == part]
        if not chosen:
            continue
        found.parts[part] = [kept[i] for i in chosen]
        if labels is not None and part != "unlabelled":
            found.y[part] = np.array([labels[i] for i in chosen])
        if names is not None:
            found.names[part] = [names[i] for i in chosen]
        if groups is not None and part == "train":
            found.groups = [groups[i] for i in chosen]
    return found
