"""Recordings in array files: (N, C, T) or (N, T) numbers, or one after another with their lengths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sslcli.console import escape, format_override
from sslcli.data.files.array_fields import PARTS, assign_fields
from sslcli.data.files.array_file import read_entries
from sslcli.data.recordings.recordings import Columns, Recordings
from sslcli.errors import DataError, RequestError, listing, nearest

GROUPS = ("groups", "group")
LENGTHS = ("len", "lengths", "length")


def read_arrays(path: str, layout: str, wish: Columns, notes: list[str]) -> Recordings:
    """The recordings of an .npz, .npy or .pt file, or a folder of them. Raises RequestError for names, DataError for contents."""
    entries = read_entries(path)
    fields = assign_fields(entries, wish.label, path, notes)
    groups = _groups(entries, wish.group, path)
    parts = {part: _recordings(v, key, _lengths(entries, part), layout) for part, (key, v) in fields.x.items()}
    return Recordings(parts, fields.y, groups, facts={"entries": {k: list(np.shape(v)) for k, v in entries.items()}})


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
            f"did you mean {format_override('dataset.group', close)} ?"
            if close
            else f"entries: {listing(map(escape, entries))}",
        )
    return None if key is None else [str(v) for v in np.asarray(entries[key]).reshape(-1).tolist()]


def _lengths(entries: Mapping[str, np.ndarray], part: str) -> np.ndarray | None:
    lower = {k.lower(): k for k in entries}
    names = [f"{w}_{p}" for w in LENGTHS for p in PARTS[part]] + (list(LENGTHS) if part == "train" else [])
    key = next((lower[n] for n in names if n in lower), None)
    return None if key is None else np.asarray(entries[key])


def _recordings(value: np.ndarray, key: str, lengths: np.ndarray | None, layout: str) -> list[np.ndarray] | np.ndarray:
    """The recordings of an entry, each (C, T) float32; an array (N, C, T) where all have one length."""
    v = np.asarray(value)
    if v.dtype.kind not in "uifb":
        raise DataError(f"{escape(key)} has the type {v.dtype}; expected numbers")
    if v.size == 0:
        raise DataError(f"{escape(key)} is empty: its shape is {v.shape}")
    if v.dtype.kind == "f":
        infinite = sum(int(np.isinf(part).sum()) for part in np.array_split(v, max(1, v.size >> 24)))
        if infinite:
            raise DataError(f"{escape(key)} holds {infinite:,} infinite values", "use NaN for missing values")
        if v.dtype == np.float64 and float(np.nanmax(np.abs(v), initial=0)) > 1e38:
            raise DataError(f"{escape(key)} holds values beyond 1e38, too large for float32", "divide them first")
    v = v.astype(np.float32, copy=False)
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
    return v
