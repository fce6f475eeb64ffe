"""Time series in an .npz: (N, C, T) or (N, T) numbers, with or without labels and groups.

    np.savez("FILE.npz", x=x, y=y, groups=who)  # a held-out split is made, of whole groups
    np.savez("FILE.npz", x_train=..., y_train=..., x_test=..., y_test=...)  # or the split is there

NaN means missing, or padding after the end. Recordings of several lengths may also stand one after another: x (samples
in all, C) with len (N,), here as len, len_train, len_test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.array_fields import PARTS, assign_fields, encode_labels, make_sources
from sslcli.data.files.array_file import read_entries
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_path
from sslcli.data.notify import shown
from sslcli.data.split import split, split_recordings
from sslcli.data.stats import outlier_notes, series_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import DataError, RequestError, listing, nearest

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
    pretrain_on: str = "unlabelled",  # what runs mean that were made before there was this key
) -> Dataset:
    """Series (N, C, T) float32 from an .npz (or .npy, .pt), as a Dataset of the modality "series".

    `layout`: nct or ntc, the order of the axes. `window`: cut each recording into pieces of so many steps, one every
    `stride` (default: `window`); what is left at the end is kept when it is half a window or more, padded with NaN.
    `label`: auto, none, or the name of the entry. `group`: samples of one group are never on both sides of the held-out split:
    recording (the entry `groups`, else all windows of one recording), none, or the name of an entry; auto, of runs made
    before, is the entry `groups` alone. `holdout`: the share that is held out; auto is a fifth where there are labels.

    `pretrain_on`: where there is an unlabelled part, all (train, too) or unlabelled.

    Raises RequestError for paths and values, DataError for what the file holds.
    """
    text = require_path(path, "a file of series (.npz)")
    if layout not in ("nct", "ntc"):
        raise RequestError(f"dataset.layout is {shown(layout)}, but must be nct or ntc", "dataset.layout=nct")
    for key, value in (("window", window), ("stride", stride)):
        if value is not None and value < 2 - (key == "stride"):
            raise RequestError(f"dataset.{key} is {value}, too few steps", f"dataset.{key}=128")
    if stride is not None and window is None:
        raise RequestError("dataset.stride has no meaning without dataset.window", "dataset.window=128")
    check_pretrain_on(pretrain_on)
    notes: list[str] = []
    entries = read_entries(text)
    found = assign_fields(entries, label, text, notes)
    who = _groups(entries, group, text)
    raw = {part: _recordings(v, key, _lengths(entries, part), layout) for part, (key, v) in found.x.items()}
    widths = {r.shape[0] for rs in raw.values() for r in rs}
    if len(widths) != 1:
        raise DataError(f"the series of {shown(text)} have different numbers of channels: {sorted(widths)}")
    classes, labels = encode_labels(found.y, {k: len(v) for k, v in raw.items()}, text, notes)
    if who is not None and len(who) != len(raw["train"]):
        raise DataError(f"{shown(text)} has {len(raw['train']):,} series but {len(who):,} groups")

    parts, origins, starts, dropped = {}, {}, {}, 0
    longest = window or max(r.shape[1] for rs in raw.values() for r in rs)
    for part, recordings in raw.items():
        pieces, origin, start = _cut(recordings, longest, window, stride)
        kept = ~pieces.isnan().all(2).all(1)
        dropped += int((~kept).sum())
        parts[part], origin, starts[part] = pieces[kept], origin[kept], start[kept]
        origins[part] = origin
        if not len(origin):
            raise DataError(f"no series of {shown(text)} ({part}) holds a number")
        if part in labels:
            labels[part] = labels[part][origin]
        if part == "train" and who is not None:
            who = [who[i] for i in origin.tolist()]
    x = parts["train"]
    _describe(raw["train"], x, window, stride, layout, notes)
    if dropped:
        notes.append(f"warning: {plural(dropped, 'series', 'series')} without any number left out")
    if who is not None:
        notes.append(
            f"{plural(len(set(who)), 'group')}" + (", not used: the file has a test part" if "test" in parts else "")
        )
    y = labels.get("train")
    by_recording = group == "recording" and who is None and window is not None

    def hold_out() -> tuple[Tensor, Tensor, str]:
        if by_recording:
            return split_recordings(origins["train"], starts["train"], longest, holdout, split_seed, y)
        how = "by group" if who is not None else "stratified by class" if y is not None else "at random"
        if group == "auto" and who is None and window is not None:
            how += "; windows of one recording may be on both sides (dataset.group=recording keeps them together)"
        return (*split(len(x), holdout, split_seed, y, who), how)

    made = make_sources(parts, labels, classes, hold_out, notes, _codes(origins, who) if group == "recording" else None)
    made["unlabelled"] = pretrain_source(made["train"], made["unlabelled"], pretrain_on, notes)
    mean, std, constant = series_stats(made["train"].x)
    notes += outlier_notes(made["train"].x)
    if constant:
        notes.append(f"warning: {plural(constant, 'channel')} never change")
    return Dataset(
        name=name,
        modality="series",
        shape=(x.shape[1], longest),
        **made,
        classes=classes,
        mean=mean,
        std=std,
        fingerprint=fingerprint(
            sum(map(len, parts.values())), (t.numpy().tobytes() for t in [*parts.values(), *labels.values()])
        ),
        notes=notes,
        details={
            "layout": "series",
            "entries": {k: list(np.shape(v)) for k, v in entries.items()},
            "file": os.path.basename(text),
            "groups": sorted(set(who)) if who is not None else [],
        },
    )


def _describe(
    recordings: list[np.ndarray], x: Tensor, window: int | None, stride: int | None, layout: str, notes: list[str]
) -> None:
    """How many, how long, what is missing. `x`: (M, C, T), what became of the recordings."""
    lengths = {r.shape[1] for r in recordings}
    said = f"{min(lengths)}..{max(lengths)}" if len(lengths) > 1 else str(max(lengths))
    notes.append(f"{plural(len(recordings), 'series', 'series')} of {plural(x.shape[1], 'channel')} and {said} steps")
    if window:
        notes.append(f"cut into {plural(len(x), 'window')} of {window} steps, one every {stride or window}")
    elif len(lengths) > 1:
        notes.append(f"padded with NaN to {x.shape[2]} steps; dataset.window=N would cut pieces of N steps instead")
    if layout == "nct" and x.shape[1] > x.shape[2]:
        notes.append(
            f"warning: {x.shape[1]} channels of {x.shape[2]} steps: if the axes are (N, T, C), say dataset.layout=ntc"
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
            f"dataset.group={shown(str(group))} is no entry of {shown(path)}",
            f"did you mean dataset.group={shown(close)} ?" if close else f"entries: {listing(map(shown, entries))}",
        )
    return None if key is None else [str(v) for v in np.asarray(entries[key]).reshape(-1).tolist()]


def _codes(origins: Mapping[str, Tensor], who: list[str] | None) -> dict[str, Tensor]:
    """Of each part a number for each sample that says its group: by name where there are names, else its recording."""
    found, above = {}, 0
    for part, origin in origins.items():
        codes = origin
        if part == "train" and who is not None:
            index = {name: i for i, name in enumerate(sorted(set(who)))}
            codes = torch.tensor([index[name] for name in who])
        found[part] = codes + above
        above = int(found[part].max()) + 1
    return found


def _lengths(entries: Mapping[str, np.ndarray], part: str) -> np.ndarray | None:
    lower = {k.lower(): k for k in entries}
    names = [f"{w}_{p}" for w in LENGTHS for p in PARTS[part]] + (list(LENGTHS) if part == "train" else [])
    key = next((lower[n] for n in names if n in lower), None)
    return None if key is None else np.asarray(entries[key])


def _recordings(value: np.ndarray, key: str, lengths: np.ndarray | None, layout: str) -> list[np.ndarray]:
    """Each recording as (C, T) float32."""
    v = np.asarray(value)
    if v.dtype.kind not in "uifb":
        raise DataError(f"{shown(key)} is of the type {v.dtype}, numbers are wanted")
    if v.size == 0:
        raise DataError(f"{shown(key)} is empty: its shape is {v.shape}")
    if v.dtype.kind == "f":
        infinite = int(np.isinf(v).sum())
        if infinite:
            raise DataError(f"{shown(key)} holds {infinite:,} infinite values", "NaN is the sign for a missing value")
        if v.dtype == np.float64 and float(np.nanmax(np.abs(v), initial=0)) > 1e38:
            raise DataError(f"{shown(key)} holds values beyond 1e38, too large for float32", "divide them first")
    v = v.astype(np.float32)
    if lengths is not None:
        total = int(lengths.sum()) if lengths.dtype.kind in "ui" and lengths.ndim == 1 else -1
        if total < 0 or (lengths <= 0).any() or v.ndim > 2 or total != len(v):
            raise DataError(
                f"{shown(key)} {v.shape} with lengths {lengths.shape} that sum up to {total:,}: "
                "recordings one after another are (steps in all, C), with one positive length for each"
            )
        v = v[:, None] if v.ndim == 1 else v
        return [part.T for part in np.split(v, np.cumsum(lengths)[:-1])]
    if v.ndim == 2:
        v = v[:, None]
    elif v.ndim == 3:
        v = v if layout == "nct" else v.transpose(0, 2, 1)
    else:
        hint = "dataset=arrays reads images" if v.ndim == 4 else None
        raise DataError(f"{shown(key)} has the shape {v.shape}; series are (N, C, T) or (N, T)", hint)
    if v.shape[2] < 2:
        raise DataError(f"{shown(key)} has the shape {v.shape}: a series has at least 2 steps")
    return list(v)


def _cut(
    recordings: list[np.ndarray], length: int, window: int | None, stride: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(M, C, length) float32 padded with NaN; which recording each piece is of, and at which step it begins, (M,) int64 each."""
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
