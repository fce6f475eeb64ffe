"""Time series in an .npz file: (N, C, T) or (N, T) numbers, with or without labels and groups.

    np.savez("FILE.npz", x=x, y=y, groups=groups)  # a held-out split is made, of whole groups
    np.savez("FILE.npz", x_train=..., y_train=..., x_test=..., y_test=...)  # the file has a held-out split

NaN means missing, or padding after the end. Recordings of different lengths may also be concatenated: x (total steps, C)
with the lengths len (N,) (or len_train, len_test).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.array_fields import PARTS, assign_fields, check_task, encode_targets, make_sources
from sslcli.data.files.array_file import read_entries
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_path
from sslcli.data.split import split, split_recordings
from sslcli.data.stats import outlier_notes, series_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import DataError, RequestError, listing, nearest
from sslcli.nn.values import Continuous

GROUPS = ("groups", "group")
LENGTHS = ("len", "lengths", "length")


def series(
    path: str | None = None,
    name: str = "series",
    layout: str = "nct",
    window: int | None = None,
    stride: int | None = None,
    label: str | None = "auto",
    group: str | None = "recording",
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "unlabelled",  # the behavior of runs older than this key
    task: str = "auto",
) -> Dataset:
    """A data set of series (N, C, T) float32 in an .npz (or .npy, .pt) file, of the modality "series".

    `layout`: nct or ntc, the order of the axes.
    `window`: divide each recording into windows of this many steps, one every `stride` (default: `window`); a remainder of
    half a window or more is kept and padded with NaN.
    `label`: auto, none, or the name of the entry with the labels.
    `group`: samples of one group are never on both sides of the held-out split: recording (the entry `groups`, else all windows
    of one recording), none, or the name of an entry; auto, for older runs, is the entry `groups` only.
    `holdout`: the held-out fraction; auto is a fifth where there are labels.
    `task`: classes, value (numbers to predict), or auto: value where the labels are numbers with fractions.
    `pretrain_on`: where there is an unlabeled split, all (train and unlabelled) or unlabelled.

    Raises RequestError for paths and values, DataError for the contents of the file.
    """
    text = require_path(path, "a file of series (.npz)")
    _check_options(layout, window, stride)
    check_pretrain_on(pretrain_on)
    check_task(task)
    notes: list[str] = []
    entries = read_entries(text)
    fields = assign_fields(entries, label, text, notes)
    groups = _groups(entries, group, text)
    recordings = {part: _recordings(v, key, _lengths(entries, part), layout) for part, (key, v) in fields.x.items()}
    channels = {r.shape[0] for part in recordings.values() for r in part}
    if len(channels) != 1:
        raise DataError(f"the series of {escape(text)} differ in the number of channels: {sorted(channels)}")
    targets = encode_targets(fields.y, {k: len(v) for k, v in recordings.items()}, task, text, notes)
    if groups is not None and len(groups) != len(recordings["train"]):
        raise DataError(f"{escape(text)} has {len(recordings['train']):,} series but {len(groups):,} groups")

    length = window or max(r.shape[1] for part in recordings.values() for r in part)
    windows = _windows(recordings, length, window, stride, text)
    parts = {part: w.x for part, w in windows.items()}
    targets = targets.select({part: w.origin for part, w in windows.items()})
    holdout = targets.holdout(holdout)
    if groups is not None:
        groups = [groups[i] for i in windows["train"].origin.tolist()]
    _describe(recordings["train"], parts["train"], window, stride, layout, notes)
    if empty := sum(w.empty for w in windows.values()):
        notes.append(f"warning: {plural(empty, 'series', 'series')} without any value left out")
    if groups is not None:
        unused = ", not used, because the file has a test split" if "test" in parts else ""
        notes.append(f"{plural(len(set(groups)), 'group')}{unused}")
    y = targets.labels.get("train")

    def hold_out() -> tuple[Tensor, Tensor, str]:
        train = windows["train"]
        if group == "recording" and groups is None and window is not None:
            return split_recordings(train.origin, train.start, length, holdout, split_seed, y)
        how = "by group" if groups is not None else "stratified by class" if y is not None else "at random"
        if group == "auto" and groups is None and window is not None:
            how += "; windows of one recording may be in both splits (dataset.group=recording prevents it)"
        return (*split(len(train.x), holdout, split_seed, y, groups), how)

    group_ids = _group_ids(windows, groups) if group == "recording" else None
    sources = make_sources(parts, targets, hold_out, notes, group_ids)
    sources["unlabelled"] = pretrain_source(sources["train"], sources["unlabelled"], pretrain_on, notes)
    mean, std, constant = series_stats(sources["train"].x)
    notes += outlier_notes(sources["train"].x)
    if constant:
        notes.append(f"warning: {plural(constant, 'constant channel')}")
    contents = (t.numpy().tobytes() for t in [*parts.values(), *targets.tensors()])
    return Dataset(
        name=name,
        modality="series",
        shape=(parts["train"].shape[1], length),
        **sources,
        classes=targets.classes,
        task=targets.task,
        values=Continuous(mean, std),
        fingerprint=fingerprint(sum(map(len, parts.values())), contents),
        notes=notes,
        details={
            "layout": "series",
            "entries": {k: list(np.shape(v)) for k, v in entries.items()},
            "file": os.path.basename(text),
            "groups": sorted(set(groups)) if groups is not None else [],
        },
    )


def _check_options(layout: str, window: int | None, stride: int | None) -> None:
    if layout not in ("nct", "ntc"):
        raise RequestError(f"dataset.layout: expected nct or ntc, got {escape(layout)}", "dataset.layout=nct")
    for key, value, minimum in (("window", window, 2), ("stride", stride, 1)):
        if value is not None and value < minimum:
            raise RequestError(f"dataset.{key}: expected at least {minimum} steps, got {value}", f"dataset.{key}=128")
    if stride is not None and window is None:
        raise RequestError("dataset.stride requires dataset.window", "dataset.window=128")


class Windows(NamedTuple):
    """The windows of the recordings of one split."""

    x: Tensor  # (M, C, length) float32, padded with NaN
    origin: Tensor  # (M,) int64: the recording
    start: Tensor  # (M,) int64: the first step
    empty: int  # number of windows left out, because they hold no value


def _windows(
    recordings: Mapping[str, list[np.ndarray]], length: int, window: int | None, stride: int | None, path: str
) -> dict[str, Windows]:
    """The windows of each split. Raises DataError where a split holds no value."""
    windows = {}
    for part, values in recordings.items():
        x, origin, start = _cut(values, length, window, stride)
        keep = ~x.isnan().all(2).all(1)
        windows[part] = Windows(x[keep], origin[keep], start[keep], int((~keep).sum()))
        if not keep.any():
            raise DataError(f"no series of {escape(path)} ({part}) holds any value")
    return windows


def _describe(
    recordings: list[np.ndarray], x: Tensor, window: int | None, stride: int | None, layout: str, notes: list[str]
) -> None:
    """Add notes on number, length and missing values. `x`: (M, C, T), the windows of the recordings."""
    lengths = {r.shape[1] for r in recordings}
    steps = f"{min(lengths)}..{max(lengths)}" if len(lengths) > 1 else str(max(lengths))
    notes.append(f"{plural(len(recordings), 'series', 'series')} of {plural(x.shape[1], 'channel')} and {steps} steps")
    if window:
        notes.append(f"divided into {plural(len(x), 'window')} of {window} steps, one every {stride or window}")
    elif len(lengths) > 1:
        notes.append(
            f"padded with NaN to {x.shape[2]} steps; dataset.window=N divides them into windows of N steps instead"
        )
    if layout == "nct" and x.shape[1] > x.shape[2]:
        notes.append(
            f"warning: {x.shape[1]} channels of {x.shape[2]} steps: if the axes are (N, T, C), set dataset.layout=ntc"
        )
    absent = float(x.isnan().float().mean())
    if absent:
        notes.append(f"{absent:.1%} of the values are missing or padding (NaN)")


def _groups(entries: Mapping[str, np.ndarray], group: str | None, path: str) -> list[str] | None:
    if group == "none":
        return None
    named = {"auto": GROUPS, "recording": (*GROUPS, "recordings", "recording")}
    names = named.get(group or "auto", (str(group),))
    key = next((k for k in entries for n in names if k.lower() in (n.lower(), f"{n.lower()}_train")), None)
    if key is None and group not in (*named, None):
        close = nearest(str(group), entries)
        raise RequestError(
            f"dataset.group={escape(str(group))} is not an entry of {escape(path)}",
            f"did you mean dataset.group={escape(close)} ?" if close else f"entries: {listing(map(escape, entries))}",
        )
    return None if key is None else [str(v) for v in np.asarray(entries[key]).reshape(-1).tolist()]


def _group_ids(windows: Mapping[str, Windows], groups: list[str] | None) -> dict[str, Tensor]:
    """Integer group ids of the samples of each split: of the named groups of train, else of the recordings."""
    ids, offset = {}, 0
    for part, w in windows.items():
        codes = w.origin
        if part == "train" and groups is not None:
            index = {name: i for i, name in enumerate(sorted(set(groups)))}
            codes = torch.tensor([index[name] for name in groups])
        ids[part] = codes + offset
        offset = int(ids[part].max()) + 1
    return ids


def _lengths(entries: Mapping[str, np.ndarray], part: str) -> np.ndarray | None:
    lower = {k.lower(): k for k in entries}
    names = [f"{w}_{p}" for w in LENGTHS for p in PARTS[part]] + (list(LENGTHS) if part == "train" else [])
    key = next((lower[n] for n in names if n in lower), None)
    return None if key is None else np.asarray(entries[key])


def _recordings(value: np.ndarray, key: str, lengths: np.ndarray | None, layout: str) -> list[np.ndarray]:
    """The recordings of an entry, each (C, T) float32."""
    v = np.asarray(value)
    if v.dtype.kind not in "uifb":
        raise DataError(f"{escape(key)} has the type {v.dtype}; expected numbers")
    if v.size == 0:
        raise DataError(f"{escape(key)} is empty: its shape is {v.shape}")
    if v.dtype.kind == "f":
        infinite = int(np.isinf(v).sum())
        if infinite:
            raise DataError(f"{escape(key)} holds {infinite:,} infinite values", "use NaN for missing values")
        if v.dtype == np.float64 and float(np.nanmax(np.abs(v), initial=0)) > 1e38:
            raise DataError(f"{escape(key)} holds values beyond 1e38, too large for float32", "divide them first")
    v = v.astype(np.float32)
    if lengths is not None:
        total = int(lengths.sum()) if lengths.dtype.kind in "ui" and lengths.ndim == 1 else -1
        if total < 0 or (lengths <= 0).any() or v.ndim > 2 or total != len(v):
            raise DataError(
                f"{escape(key)} {v.shape} with lengths {lengths.shape} that sum to {total:,}: "
                "expected concatenated recordings (total steps, C), with one positive length for each"
            )
        v = v[:, None] if v.ndim == 1 else v
        return [part.T for part in np.split(v, np.cumsum(lengths)[:-1])]
    if v.ndim == 2:
        v = v[:, None]
    elif v.ndim == 3:
        v = v if layout == "nct" else v.transpose(0, 2, 1)
    else:
        hint = "dataset=arrays reads images" if v.ndim == 4 else None
        raise DataError(f"{escape(key)} has the shape {v.shape}; expected series (N, C, T) or (N, T)", hint)
    if v.shape[2] < 2:
        raise DataError(f"{escape(key)} has the shape {v.shape}; expected series of at least 2 steps")
    return list(v)


def _cut(
    recordings: list[np.ndarray], length: int, window: int | None, stride: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (M, C, length) float32 padded with NaN, and the recording and first step of each, (M,) int64."""
    pieces: list[tuple[int, int]] = []
    for i, r in enumerate(recordings):
        if window is None or r.shape[1] <= window:
            pieces.append((i, 0))
            continue
        starts = range(0, r.shape[1] - window + 1, stride or window)
        pieces += [(i, s) for s in starts]
        covered = starts[-1] + window
        if r.shape[1] - covered >= (window + 1) // 2:
            pieces.append((i, covered))
    out = torch.full((len(pieces), recordings[0].shape[0], length), float("nan"))
    for row, (i, s) in enumerate(pieces):
        part = torch.from_numpy(np.ascontiguousarray(recordings[i][:, s : s + length]))
        out[row, :, : part.shape[1]] = part
    origin, start = (torch.tensor(column, dtype=torch.int64) for column in zip(*pieces, strict=True))
    return out, origin, start
