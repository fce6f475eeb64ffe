"""Images in array files: .npy, .npz, .pt, or a folder of them; axes, split and labels are detected and said.

Files are read without executing anything: `np.load(allow_pickle=False)`, `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.classic import check_size
from sslcli.data.files import fingerprint, free_memory, is_hidden, require_path, require_regular
from sslcli.data.folder import check_range
from sslcli.data.source import ArraySource, Dataset
from sslcli.data.split import split
from sslcli.data.stats import image_stats
from sslcli.data.talk import count, shown, size
from sslcli.errors import DataError, MachineError, RequestError, listing, nearest

SUFFIXES = (".npy", ".npz", ".pt", ".pth")
# What an entry is called, in order of preference; {part}: train, test, ...
WHOLE_X = ("x", "data", "images", "image", "samples")
WHOLE_Y = ("y", "labels", "label", "targets", "target")
PARTS = {
    "train": ("train",),
    "test": ("test",),
    "val": ("val", "valid", "validation"),
    "unlabelled": ("unlabelled", "unlabeled"),
}
SAMPLED_BYTES = 2 << 30  # a larger file is identified by its size and a part of its contents


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
    train, test, ids = hold_out(parts, labels, None, holdout, split_seed, notes)
    source = ArraySource(parts["train"][ids[0]] if ids else parts["train"], train)
    held = (
        ArraySource(parts["train"][ids[1]], test)
        if ids
        else ArraySource(parts["test"], test)
        if "test" in parts
        else None
    )
    if classes:
        notes.append(f"{count(len(classes), 'class', 'classes')}: {listing(map(shown, classes), 6)}")
    else:
        notes.append("no labels")
    warn_equal_rows(source.x, held.x if held else None, notes)
    channels, height, width = parts["train"].shape[1:]
    side = image_size or min(height, width)
    if image_size is None and height != width:
        notes.append(f"images are {height} x {width}: views are {side} x {side} (dataset.image_size says otherwise)")
    mean, std = image_stats(source)
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        train=source,
        test=held,
        classes=classes,
        unlabelled=ArraySource(parts["unlabelled"]) if "unlabelled" in parts else None,
        mean=mean,
        std=std,
        fingerprint=fingerprint(sum(map(len, parts.values())), _contents([*parts.values(), *labels.values()])),
        notes=notes,
        details={"layout": "arrays", "entries": {k: list(np.shape(v)) for k, v in entries.items()}},
    )


def _contents(tensors: list[Tensor]) -> Any:
    for t in tensors:
        if t.numel() * t.element_size() > SAMPLED_BYTES:
            yield str(tuple(t.shape)).encode()
            t = t[:: max(1, len(t) // 1000)]
        for chunk in t.split(max(1, (1 << 26) // max(1, math.prod(t.shape[1:])))):
            yield chunk.contiguous().numpy().tobytes()


# ------------------------------------------------------------------------------------------------ reading


def read_entries(path: str) -> dict[str, np.ndarray]:
    """Name -> array, of one file or of the array files in a folder. A single array is called "x"."""
    if not os.path.isdir(path):
        if not path.lower().endswith(SUFFIXES):
            raise RequestError(
                f"{shown(path)} is no array file: its name ends in none of {', '.join(SUFFIXES)}",
                "dataset=image_folder reads image files and lists of them",
            )
        return read_file(require_regular(path))
    files = sorted(f for f in os.listdir(path) if f.lower().endswith(SUFFIXES) and not is_hidden(f))
    if not files:
        here = sorted(f for f in os.listdir(path) if not is_hidden(f))
        raise DataError(
            f"no array file ({', '.join(SUFFIXES)}) in {shown(path)}; "
            + (f"it holds {listing(map(shown, here), 6)}" if here else "it is empty"),
            "dataset=image_folder reads folders of image files" if here else None,
        )
    if len(files) == 1:
        return read_file(require_regular(os.path.join(path, files[0])))
    entries: dict[str, np.ndarray] = {}
    for file in files:
        stem = os.path.splitext(file)[0]
        inner = read_file(require_regular(os.path.join(path, file)))
        # train.npz with x and y in it, beside test.npz, are x_train, y_train, ...
        entries |= {stem: inner["x"]} if set(inner) == {"x"} else {f"{k}_{stem}": v for k, v in inner.items()}
    return entries


def read_file(path: str) -> dict[str, np.ndarray]:
    """The arrays of one file; nothing that a file says is ever executed. An .npy is mapped, not read."""
    lower = path.lower()
    try:
        if lower.endswith(".npy"):
            return {"x": np.load(path, mmap_mode="c", allow_pickle=False)}
        if lower.endswith(".npz"):
            with zipfile.ZipFile(path) as archive:
                _room_for(sum(i.file_size for i in archive.infolist()), path)
            with np.load(path, allow_pickle=False) as archive_:
                return {k: archive_[k] for k in archive_.files}
        _room_for(os.path.getsize(path), path)
        return _named(torch.load(path, map_location="cpu", weights_only=True), path)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{shown(path)} holds objects other than tensors and plain containers; these could run code",
            "save it again as torch.save({'x': images, 'y': labels}, FILE), with tensors",
        ) from error
    except PermissionError as error:
        raise DataError(f"{shown(path)} may not be read: {error.strerror}") from error
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if any(sign in reason for sign in ("allow_pickle", "Object arrays", "Python objects")):
            raise DataError(
                f"{shown(path)} holds Python objects (an object array), which are not read: they could run code",
                "save arrays of numbers: of samples of one shape, or padded with NaN",
            ) from error
        raise DataError(
            f"{shown(path)} cannot be read: {reason}", "is it whole, and of the kind its name says?"
        ) from error


def _room_for(n: int, path: str) -> None:
    free = free_memory()
    if n > free:
        raise MachineError(
            f"{shown(path)} unpacks to {size(n)}, but {size(free)} of memory are free",
            "an .npy file is mapped and need not fit: np.save('x.npy', x)",
        )


def _named(value: Any, path: str) -> dict[str, np.ndarray]:
    """A tensor, a pair (x, y), or a dictionary of tensors."""

    def plain(v: Any) -> Any:
        if isinstance(v, Tensor):
            v = v.detach()
            return (v.float() if v.dtype in (torch.bfloat16, torch.float16) else v).numpy()
        if isinstance(v, (list, tuple)) and v and all(isinstance(i, (int, float, str)) for i in v):
            return np.asarray(v)
        return None

    if isinstance(value, Tensor):
        return {"x": plain(value)}
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(plain(v) is not None for v in value):
        return {"x": plain(value[0]), "y": plain(value[1])}
    if isinstance(value, Mapping):
        named = {str(k): plain(v) for k, v in value.items()}
        if named := {k: v for k, v in named.items() if v is not None}:
            return named
    raise DataError(f"{shown(path)} holds no tensors of samples", "torch.save({'x': images, 'y': labels}, FILE)")


# ------------------------------------------------------------------------------------------------ names


class Found:
    """Which entry is what: part (train, test, unlabelled) -> (entry name, array)."""

    def __init__(self) -> None:
        self.x: dict[str, tuple[str, np.ndarray]] = {}
        self.y: dict[str, np.ndarray] = {}
        self.used: set[str] = set()


def _spellings(words: tuple[str, ...], part: str) -> list[str]:
    return [f"{w}_{p}" for p in PARTS[part] for w in words] + [f"{p}_{w}" for p in PARTS[part] for w in words]


def assign(entries: Mapping[str, np.ndarray], label: str | None, path: str) -> Found:
    """Samples and labels of each part, by name. DataError when there are no samples, RequestError for `label`."""
    by_lower = {k.lower(): k for k in entries}
    found = Found()

    def pick(names: list[str] | tuple[str, ...]) -> str | None:
        return next((by_lower[n] for n in names if n in by_lower), None)

    for part in PARTS:
        key = pick([*_spellings(WHOLE_X, part), *PARTS[part]])
        if key is None and part == "train":
            key = pick(WHOLE_X)
            if key is None and len(entries) == 1:
                key = next(iter(entries))
        if key is None:
            continue
        found.x[part] = key, entries[key]
        found.used.add(key)
        if label == "none" or part == "unlabelled":
            continue
        if label in ("auto", None):
            y = pick(_spellings(WHOLE_Y, part)) or (pick(WHOLE_Y) if part == "train" else None)
        else:
            y = pick([f"{label}_{p}".lower() for p in PARTS[part]] + [f"{p}_{label}".lower() for p in PARTS[part]])
            y = y or (pick([str(label).lower()]) if part == "train" else None)
        if y is not None:
            found.y[part] = entries[y]
            found.used.add(y)
    if "train" not in found.x:
        if "unlabelled" not in found.x:
            raise DataError(
                f"no samples in {shown(path)}: its entries are {listing(map(shown, entries), 8) or 'none'}",
                "call them x and y, or x_train, y_train, x_test, y_test",
            )
        found.x["train"] = found.x.pop("unlabelled")
    if label not in ("auto", "none", None) and not found.y:
        close = nearest(str(label), entries)
        raise RequestError(
            f"dataset.label={shown(str(label))} is no entry of {shown(path)}",
            f"did you mean dataset.label={shown(close)} ?" if close else f"entries: {listing(map(shown, entries))}",
        )
    if "val" in found.x:  # validation data is the held-out split only where there is no test
        if "test" not in found.x:
            found.x["test"] = found.x["val"]
            if "val" in found.y:
                found.y["test"] = found.y["val"]
        found.x.pop("val")
        found.y.pop("val", None)
    return found


def encode_labels(
    raw: Mapping[str, np.ndarray], lengths: Mapping[str, int], path: str
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Class names in order (numbers by value), and int64 labels for each part; NaN, "" and -1 mean none.

    Raises DataError when there are more or fewer labels than samples, or when they are no classes.
    """
    columns: dict[str, list[str | None]] = {}
    numeric = True
    for part, y in raw.items():
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
            y = y.argmax(1)  # one-hot
        y = y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y
        if y.ndim != 1:
            raise DataError(f"labels of {shown(path)} ({part}) have the shape {y.shape}, one for each sample is wanted")
        if len(y) != lengths[part]:
            raise DataError(f"{shown(path)} has {lengths[part]:,} samples but {len(y):,} labels ({part})")
        if y.dtype.kind == "f":
            whole = y[~np.isnan(y)]
            if not np.equal(np.mod(whole, 1), 0).all():
                raise DataError(
                    f"labels of {shown(path)} ({part}) are not whole numbers: classes are wanted, not values",
                    "dataset.label=none trains without them",
                )
            columns[part] = [None if np.isnan(v) else str(int(v)) for v in y.tolist()]
        elif y.dtype.kind in "iub":
            columns[part] = [None if v < 0 else str(int(v)) for v in y.tolist()]
        elif y.dtype.kind in "US":
            numeric = False
            columns[part] = [
                (v.decode("utf-8", "replace") if isinstance(v, bytes) else v).strip() or None for v in y.tolist()
            ]
        else:
            raise DataError(
                f"labels of {shown(path)} ({part}) are of the type {y.dtype}, numbers or strings are wanted"
            )
    names = {v for column in columns.values() for v in column if v is not None}
    numeric = numeric or all(n.removeprefix("-").isdecimal() for n in names)
    classes = tuple(sorted(names, key=lambda n: (int(n), n)) if numeric else sorted(names))
    index = {c: i for i, c in enumerate(classes)}
    return classes, {
        part: torch.tensor([-1 if v is None else index[v] for v in column], dtype=torch.int64)
        for part, column in columns.items()
    }


def hold_out(
    parts: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    groups: Any,
    holdout: float,
    split_seed: int,
    notes: list[str],
) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, Tensor] | None]:
    """Labels of train and test, and the ids of both in `train` where the file itself has no test part."""
    y = labels.get("train")
    if "test" in parts:
        return y, labels.get("test"), None
    kept, held = split(len(parts["train"]), holdout, split_seed, y, groups)
    if not len(held):
        return y, None, None
    how = "by group" if groups is not None else "stratified by class" if y is not None else "at random"
    notes.append(
        f"held out: {count(len(held), 'sample')} of {len(parts['train']):,}, {how} (dataset.holdout={holdout:g})"
    )
    return (None if y is None else y[kept]), (None if y is None else y[held]), (kept, held)


def equal_rows(a: Tensor, b: Tensor) -> int:
    """How many rows of `b` are also rows of `a`, by their bytes."""
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        return 0
    known = {hash(r.tobytes()) for part in a.split(4096) for r in part.contiguous().numpy()}
    return sum(hash(r.tobytes()) in known for part in b.split(4096) for r in part.contiguous().numpy())


def warn_equal_rows(train: Tensor, test: Tensor | None, notes: list[str]) -> None:
    if test is None or (train.numel() + test.numel()) * train.element_size() > SAMPLED_BYTES:
        return
    twice = equal_rows(train, test)
    if twice:
        notes.append(f"warning: {count(twice, 'test sample')} also in train (same values): numbers will look too good")


# ------------------------------------------------------------------------------------------------ images


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
