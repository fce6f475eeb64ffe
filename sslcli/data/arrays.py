"""Images in array files: .npy, .npz, .pt, or a folder of them; axes, split and labels are detected and said."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.arrayfile import read_entries
from sslcli.data.classic import check_size
from sslcli.data.entries import assign, encode_labels, sources
from sslcli.data.files import fingerprint, require_path
from sslcli.data.folder import check_range
from sslcli.data.source import Dataset
from sslcli.data.stats import image_stats
from sslcli.data.talk import count, shown
from sslcli.errors import DataError, RequestError, listing

SAMPLED_BYTES = 2 << 30  # a larger array is identified by its size and a part of its contents


def arrays(
    path: str | None = None,
    name: str = "arrays",
    image_size: int | None = None,
    layout: str = "auto",
    range: Any = None,
    label: str | None = "auto",
    holdout: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) from array files, with or without labels, as a Dataset.

    One file of images, or entries (of an .npz, of a dictionary in a .pt, or files of a folder) named x, y, x_train,
    y_train, x_test, y_test, train, test, data, labels and the like. uint8 is kept as it is; anything else becomes
    uint8, by `range` ([lo, hi], minmax or percentile) where it is not plainly 0..1 or 0..255. `layout`: auto, nhw,
    nhwc, nchw. `label`: auto, none, or the name of the entry with the labels.

    Raises RequestError for paths and values, DataError for what the files hold.
    """
    text = require_path(path, "an array file (.npy, .npz, .pt) or a folder of them")
    check_size(image_size)
    check_range(range)
    if layout not in ("auto", "nhw", "nhwc", "nchw"):
        raise RequestError(
            f"dataset.layout is {shown(layout)}, but must be auto, nhw, nhwc or nchw", "dataset.layout=auto"
        )
    notes: list[str] = []
    entries = read_entries(text)
    found = assign(entries, label, text)
    parts: dict[str, Tensor] = {}
    for part, (key, value) in found.x.items():
        parts[part] = _images(value, key, layout, range, notes)
    shapes = {tuple(v.shape[1:]) for v in parts.values()}
    if len({s[0] for s in shapes}) > 1:
        raise DataError(
            f"the parts of {shown(text)} have different channels: {listing(str(s) for s in sorted(shapes))}"
        )
    classes, labels = encode_labels(found.y, {k: len(v) for k, v in parts.items()}, text)
    made = sources(parts, labels, classes, None, holdout, split_seed, notes)
    channels, height, width = parts["train"].shape[1:]
    side = image_size or min(height, width)
    if image_size is None and height != width:
        notes.append(f"images are {height} x {width}: views are {side} x {side} (dataset.image_size says otherwise)")
    mean, std = image_stats(made["train"])
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        **made,
        classes=classes,
        mean=mean,
        std=std,
        fingerprint=fingerprint(sum(map(len, parts.values())), _contents([*parts.values(), *labels.values()])),
        notes=notes,
        details={"layout": "arrays", "entries": {k: list(np.shape(v)) for k, v in entries.items()}},
    )


def _contents(tensors: Iterable[Tensor]) -> Iterable[bytes]:
    for t in tensors:
        if t.numel() * t.element_size() > SAMPLED_BYTES:
            yield str(tuple(t.shape)).encode()
            t = t[:: max(1, len(t) // 1000)]
        for chunk in t.split(max(1, (1 << 26) // max(1, math.prod(t.shape[1:])))):
            yield chunk.contiguous().numpy().tobytes()


def _images(value: np.ndarray, key: str, layout: str, value_range: Any, notes: list[str]) -> Tensor:
    """(N, C, H, W) uint8 of an array in any of the layouts; says what it took it for."""
    v = np.asanyarray(value)
    if v.dtype.kind not in "uifb":
        raise DataError(f"{shown(key)} is of the type {v.dtype}, numbers are wanted")
    if v.ndim not in (3, 4):
        hint = "reshape it to (N, H, W)"
        if v.ndim == 2:
            side = math.isqrt(v.shape[1])
            hint = f"x.reshape(-1, {side}, {side})" if side * side == v.shape[1] > 1 else "dataset=series reads (N, T)"
        raise DataError(
            f"{shown(key)} has the shape {v.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)", hint
        )
    if 0 in v.shape:
        raise DataError(f"{shown(key)} is empty: its shape is {v.shape}")
    axes = _axes(v, key, layout)
    n = len(v)
    chosen = {"nhw": (0, 1, 2), "nhwc": (0, 3, 1, 2), "nchw": (0, 1, 2, 3)}[axes]
    v = v.transpose(chosen)
    v = v[:, None] if axes == "nhw" else v
    note = f"{shown(key)}: {count(n, 'image')}, read as ({', '.join(axes.upper())}) {tuple(value.shape)} {value.dtype}"
    if v.dtype == np.uint8:
        if value_range is not None:
            note += "; dataset.range has no effect on bytes"
        notes.append(note)
        return torch.from_numpy(v)
    scaled, how = _to_bytes(v, key, value_range)
    notes.append(f"{note}; {how}")
    return torch.from_numpy(scaled)


def _axes(v: np.ndarray, key: str, layout: str) -> str:
    if layout != "auto":
        if len(layout) != v.ndim:
            raise RequestError(f"dataset.layout={layout} wants {len(layout)} axes, but {shown(key)} is {v.shape}")
        return layout
    if v.ndim == 3:
        return "nhw"
    _, a, b, c = v.shape
    first, last = a in (1, 3, 4), c in (1, 3, 4)
    if first != last:
        return "nchw" if first else "nhwc"
    if not first and a < min(b, c) and not c < min(a, b):
        return "nchw"
    if not first and c < min(a, b):
        return "nhwc"
    raise DataError(
        f"which axis of {shown(key)} {v.shape} is the channel cannot be told", "dataset.layout=nchw or nhwc"
    )


def _to_bytes(v: np.ndarray, key: str, value_range: Any) -> tuple[np.ndarray, str]:
    low, high, bad = _extremes(v)
    if bad:
        raise DataError(f"{shown(key)} holds {bad:,} values that are NaN or infinite", "images must be finite numbers")
    if value_range == "minmax":
        lo, hi = low, high
    elif value_range == "percentile":
        lo, hi = (float(p) for p in np.percentile(v[:: max(1, len(v) // 2000)], [1, 99]))
    elif value_range is not None:
        lo, hi = float(value_range[0]), float(value_range[1])
    elif v.dtype.kind == "b" or (v.dtype.kind == "f" and low >= 0 and high <= 1):
        lo, hi = 0.0, 1.0
    elif low >= 0 and high <= 255 and (high > 16 or v.dtype.kind != "f"):
        lo, hi = 0.0, 255.0
    else:
        depth = next((2**b - 1 for b in (8, 10, 12, 14, 16) if high < 2**b), high)
        guess = f"[0,{depth:g}]" if v.dtype.kind in "ui" and low >= 0 else f"[{low:g},{high:g}]"
        raise DataError(
            f"{shown(key)} holds values {low:g}..{high:g}, and what black and white are cannot be told",
            f"dataset.range={guess}, or dataset.range=minmax",
        )
    if hi <= lo:
        raise DataError(f"{shown(key)} holds one value only, {low:g}")
    out = np.empty(v.shape, np.uint8)
    step = max(1, (1 << 24) // max(1, math.prod(v.shape[1:])))
    for i in range(0, len(v), step):
        part = v[i : i + step].astype(np.float64)
        out[i : i + step] = np.rint((part.clip(lo, hi) - lo) * (255.0 / (hi - lo)))
    return out, f"{lo:g}..{hi:g} became bytes 0..255"


def _extremes(v: np.ndarray) -> tuple[float, float, int]:
    low, high, bad = math.inf, -math.inf, 0
    step = max(1, (1 << 24) // max(1, math.prod(v.shape[1:])))
    for i in range(0, len(v), step):
        part = v[i : i + step]
        if part.dtype.kind == "f":
            finite = np.isfinite(part)
            if not finite.all():
                bad += int((~finite).sum())
                part = part[finite]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high, bad
