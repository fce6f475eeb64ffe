"""Images in array files: .npy, .npz, .pt, or a folder of them; the axes, the split and the labels are detected and noted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.array_fields import ArrayFields, assign_fields, check_task, encode_targets, make_sources
from sslcli.data.files.array_file import read_entries
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_path
from sslcli.data.images.bit_depth import Values, check_range, fit_range
from sslcli.data.images.options import check_size
from sslcli.data.split import split
from sslcli.data.stats import dark_notes, image_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import DataError, RequestError, listing
from sslcli.nn.values import Continuous

SAMPLED_BYTES = 2 << 30  # a larger array is identified by its shape and a sample of its contents
MAX_CLIPPED = 0.01  # a larger fraction of clipped values in a split causes a warning


def arrays(
    path: str | None = None,
    name: str = "arrays",
    image_size: int | None = None,
    layout: str = "auto",
    range: Any = "auto",
    label: str | None = "auto",
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "unlabelled",  # the behavior of runs older than this key
    task: str = "auto",
) -> Dataset:
    """A data set of images (N, H, W), (N, H, W, C) or (N, C, H, W) in array files, with or without labels.

    The files hold one array of images, or entries (of an .npz, of a dictionary in a .pt, or files of a folder) named x, y,
    x_train, y_train, x_test, y_test, train, test, data, labels and the like.

    `range`: uint8 is not changed; other types are scaled to uint8, all splits by the same range: [lo, hi], or minmax or
    percentile of the training split; auto recognizes 0..1 and 0..255.
    `layout`: auto, nhw, nhwc or nchw. `label`: auto, none, or the name of the entry with the labels.
    `task`: classes, value (numbers to predict), or auto: value where the labels are numbers with fractions.
    `pretrain_on`: where there is an unlabeled split, all (train and unlabelled) or unlabelled.

    Raises RequestError for paths and values, DataError for the contents of the files.
    """
    text = require_path(path, "an array file (.npy, .npz, .pt) or a folder of them")
    check_size(image_size)
    check_range(range)
    check_task(task)
    if layout not in ("auto", "nhw", "nhwc", "nchw"):
        raise RequestError(
            f"dataset.layout: expected auto, nhw, nhwc or nchw, got {escape(layout)}", "dataset.layout=auto"
        )
    check_pretrain_on(pretrain_on)
    notes: list[str] = []
    entries = read_entries(text)
    fields = assign_fields(entries, label, text, notes)
    parts, scale = _read_parts(fields, text, layout, range, notes)
    targets = encode_targets(fields.y, {k: len(v) for k, v in parts.items()}, task, text, notes)
    y = targets.labels.get("train")

    def hold_out() -> tuple[Tensor, Tensor, str]:
        return (
            *split(len(parts["train"]), targets.holdout(holdout), split_seed, y),
            "at random" if y is None else "stratified by class",
        )

    sources = make_sources(parts, targets, hold_out, notes)
    sources["unlabelled"] = pretrain_source(sources["train"], sources["unlabelled"], pretrain_on, notes)
    channels, height, width = parts["train"].shape[1:]
    side = image_size or min(height, width)
    if image_size is None and height != width:
        notes.append(f"images are {height} x {width}: views are {side} x {side} (or set dataset.image_size)")
    mean, std = image_stats(sources["train"])
    if dark := dark_notes(mean, std):
        notes += [f"{dark[0]}; dataset.range=[lo,hi] scales values that are not bytes (x.astype('float32'))"]
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        **sources,
        classes=targets.classes,
        task=targets.task,
        values=Continuous(mean, std),
        fingerprint=fingerprint(
            sum(map(len, parts.values())),
            _contents([*parts.values(), *targets.tensors()]),
        ),
        notes=notes,
        details={
            "layout": "arrays",
            "entries": {k: list(np.shape(v)) for k, v in entries.items()},
            "range": None if scale is None else [scale.low, scale.high],
        },
    )


def _read_parts(
    fields: ArrayFields, path: str, layout: str, value_range: Any, notes: list[str]
) -> tuple[dict[str, Tensor], Scale | None]:
    """(N, C, H, W) uint8 of each split, and their common scale: that of train, if it is not of bytes."""
    parts: dict[str, Tensor] = {}
    scale: Scale | None = None
    for part in sorted(fields.x, key=lambda part: part != "train"):
        key, value = fields.x[part]
        parts[part], scale = _to_images(value, key, layout, value_range, scale, notes)
    parts = {part: parts[part] for part in fields.x}
    shapes = {tuple(v.shape[1:]) for v in parts.values()}
    if len({s[0] for s in shapes}) > 1:
        raise DataError(
            f"the splits of {escape(path)} differ in the number of channels: {listing(str(s) for s in sorted(shapes))}"
        )
    return parts, scale


def _contents(tensors: Iterable[Tensor]) -> Iterable[bytes]:
    for t in tensors:
        if t.numel() * t.element_size() > SAMPLED_BYTES:
            yield str(tuple(t.shape)).encode()
            t = t[:: max(1, len(t) // 1000)]
        for chunk in t.split(max(1, (1 << 26) // max(1, math.prod(t.shape[1:])))):
            yield chunk.contiguous().numpy().tobytes()


@dataclass(frozen=True)
class Scale:
    """The values that become 0 and 255, the entry that they were found in, and how."""

    low: float
    high: float
    key: str
    how: str


def _to_images(
    value: np.ndarray, key: str, layout: str, value_range: Any, scale: Scale | None, notes: list[str]
) -> tuple[Tensor, Scale | None]:
    """(N, C, H, W) uint8 of an array in any of the layouts, by `scale` or else by one found here. Adds notes."""
    v = np.asanyarray(value)
    if v.dtype.kind not in "uifb":
        raise DataError(f"{escape(key)} has the type {v.dtype}; expected numbers")
    if v.ndim not in (3, 4):
        hint = "reshape it to (N, H, W)"
        if v.ndim == 2:
            side = math.isqrt(v.shape[1])
            hint = f"x.reshape(-1, {side}, {side})" if side * side == v.shape[1] > 1 else "dataset=series reads (N, T)"
        raise DataError(
            f"{escape(key)} has the shape {v.shape}; expected images (N, H, W), (N, H, W, C) or (N, C, H, W)", hint
        )
    if 0 in v.shape:
        raise DataError(f"{escape(key)} is empty: its shape is {v.shape}")
    axes = _axes(v, key, layout)
    n = len(v)
    if layout == "auto" and v.ndim == 3 and n == v.shape[1] != v.shape[2]:
        notes.append(
            f"warning: {escape(key)} {v.shape} is read as {n} images of {v.shape[1]} x {v.shape[2]}; if the last axis is "
            "the number of images, save np.moveaxis(x, -1, 0)"
        )
    order = {"nhw": (0, 1, 2), "nhwc": (0, 3, 1, 2), "nchw": (0, 1, 2, 3)}[axes]
    v = v.transpose(order)
    v = v[:, None] if axes == "nhw" else v
    note = (
        f"{escape(key)}: {plural(n, 'image')}, read as ({', '.join(axes.upper())}) {tuple(value.shape)} {value.dtype}"
    )
    if v.dtype == np.uint8:
        if value_range not in ("auto", None):
            note += "; dataset.range has no effect on bytes"
        notes.append(note)
        return torch.from_numpy(v), scale
    low, high, bad = _extremes(v)
    if bad:
        raise DataError(f"{escape(key)} holds {bad:,} values that are NaN or infinite", "replace them by finite values")
    scale = scale or _scale(v, key, value_range, low, high)
    scaled, outside = _to_bytes(v, scale)
    of = "" if scale.key == key else f" as in {escape(scale.key)}"
    notes.append(f"{note}; {scale.low:g}..{scale.high:g} scaled to 0..255{of or scale.how}")
    if scale.key != key and high - low < (scale.high - scale.low) / 16:
        notes.append(
            f"warning: the values of {escape(key)} ({low:g}..{high:g}) cover little of that range: check its scale"
        )
    if outside > MAX_CLIPPED:
        notes.append(
            f"warning: {outside:.1%} of the values of {escape(key)} ({low:g}..{high:g}) are outside and are clipped"
        )
    return torch.from_numpy(scaled), scale


def _axes(v: np.ndarray, key: str, layout: str) -> str:
    if layout != "auto":
        if len(layout) != v.ndim:
            raise RequestError(
                f"dataset.layout={layout} requires {len(layout)} axes, but {escape(key)} has the shape {v.shape}"
            )
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
    raise DataError(f"the channel axis of {escape(key)} {v.shape} is ambiguous", "dataset.layout=nchw or nhwc")


def _scale(v: np.ndarray, key: str, value_range: Any, low: float, high: float) -> Scale:
    """The scale by `dataset.range` and the values of `v`. Raises DataError where auto recognizes no range."""
    if isinstance(value_range, (list, tuple)):
        return Scale(float(value_range[0]), float(value_range[1]), key, "")
    if str(value_range).startswith("image_"):
        raise RequestError(
            f"dataset.range={value_range} is not available: arrays have one range for all images",
            "dataset.range=percentile",
        )
    if value_range in ("minmax", "percentile"):
        if high <= low:
            raise DataError(f"{escape(key)} is constant, {low:g}")
        sample = np.asarray(v[:: max(1, len(v) // 2000)], np.float64).reshape(-1)
        lo, hi, how = fit_range(value_range, Values(low, high, sample, v.dtype.kind != "f"))
        return Scale(lo, hi, key, f", {how}")
    if v.dtype.kind == "b" or (v.dtype.kind == "f" and low >= 0 and high <= 1):
        return Scale(0.0, 1.0, key, "")
    if low >= 0 and high <= 255 and (high > 16 or v.dtype.kind != "f"):
        return Scale(0.0, 255.0, key, "")
    depth = next((2**b - 1 for b in (8, 10, 12, 14, 16) if high < 2**b), high)
    guess = f"[0,{depth:g}]" if v.dtype.kind in "ui" and low >= 0 else f"[{low:g},{high:g}]"
    raise DataError(
        f"{escape(key)} holds values {low:g}..{high:g}, of which the range from black to white is unknown",
        f"dataset.range={guess}, or dataset.range=minmax, or dataset.range=percentile, which ignores outliers",
    )


def _to_bytes(v: np.ndarray, scale: Scale) -> tuple[np.ndarray, float]:
    """uint8 of `v`, and the fraction of the values that were clipped."""
    lo, hi = scale.low, scale.high
    out = np.empty(v.shape, np.uint8)
    step = max(1, (1 << 24) // max(1, math.prod(v.shape[1:])))
    outside = 0
    for i in range(0, len(v), step):
        part = v[i : i + step].astype(np.float64)
        outside += int(((part < lo) | (part > hi)).sum())
        out[i : i + step] = np.rint((part.clip(lo, hi) - lo) * (255.0 / (hi - lo)))
    return out, outside / v.size


def _extremes(v: np.ndarray) -> tuple[float, float, int]:
    """Minimum, maximum and number of non-finite values."""
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
