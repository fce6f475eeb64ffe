"""A user's images: class folders, nested or flat folders, or a list file; what was found is said in the notes.

Layouts, in the order in which they are recognised:

- `train/` with `test/` or `val/` (and `unlabelled/`): splits; each is then read as below. `test` wins over `val`.
- sub-folders with images: the top-level folder names are the classes, however deep the images lie. Folders that hold
  nothing but one folder are stepped into. Images beside the class folders have no label.
- images only: no labels.
- `FILE.txt`, one path a line; `FILE.csv` with a header: `path`, and where wanted `label`, `split`, `group`. Relative
  paths are relative to the list file.

Where there is no held-out split, one is made (`dataset.holdout`, stratified where there are labels).
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcli.data import decode, talk
from sslcli.data.classic import check_size
from sslcli.data.files import (
    Listing,
    content_hash,
    fingerprint,
    free_memory,
    require_folder,
    require_path,
    require_regular,
    scan,
)
from sslcli.data.source import ArraySource, Dataset, Source
from sslcli.data.split import split
from sslcli.data.stats import image_stats
from sslcli.data.talk import count, shown
from sslcli.errors import DataError, RequestError, listing
from sslcli.rng import derive, order

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}
RESIDENT_BYTES = 2 << 30
SAMPLED_HEADERS = 512
MAX_LISTED = 20_000  # files compared for duplicates, at most
OTHER_KINDS = {".npy": "arrays", ".npz": "arrays", ".pt": "arrays"}


class FolderSource(Source):
    """Image files, decoded one by one. `read` raises BadImage."""

    def __init__(
        self,
        paths: Sequence[str],
        labels: Tensor | None,
        names: Sequence[str],
        channels: int,
        need: int | None,
        value_range: Any,
        max_bad_fraction: float,
        sizes: Sequence[int] = (),
    ):
        self.paths, self.labels, self.names = paths, labels, names
        self.channels, self.need, self.value_range = channels, need, value_range
        self.max_bad_fraction = max_bad_fraction
        self.sizes = sizes  # bytes

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image.Image:
        return decode.load(self.paths[index], self.channels, self.need, self.value_range)


@dataclass
class _Files:
    """Files of one split, in order."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    classes: list[str | None] = field(default_factory=list)
    groups: list[str] | None = None

    def add(self, path: str, name: str, size: int, cls: str | None) -> None:
        self.paths.append(path)
        self.names.append(name)
        self.sizes.append(size)
        self.classes.append(cls)

    def take(self, ids: Iterable[int]) -> _Files:
        ids = list(ids)
        out = _Files()
        for i in ids:
            out.add(self.paths[i], self.names[i], self.sizes[i], self.classes[i])
        out.groups = None if self.groups is None else [self.groups[i] for i in ids]
        return out

    def __len__(self) -> int:
        return len(self.paths)


def image_folder(
    path: str | None = None,
    name: str = "image_folder",
    image_size: int | None = None,
    channels: int | str = "auto",
    label: str | None = "auto",
    holdout: float = 0.2,
    split_seed: int = 0,
    resident: bool | str = "auto",
    range: Any = None,
    max_bad_fraction: float = 0.01,
) -> Dataset:
    """A folder of images or a list file, as a Dataset; see the top of this file for the layouts.

    `image_size`: side of a view; null is the images' own side where all have one size of at most 224, else 224.
    `channels`: 1, 3, 4 or auto (1 where every image is grey, else 3). `label`: auto, none, or the column of a CSV list.
    `resident`: keep all decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `range`: what 16-bit and float values mean: [lo, hi], percentile, or null (see `decode.to_bytes`).

    Raises RequestError for paths and values, DataError for what lies there.
    """
    text = require_path(path, "a folder of images or a list file (.txt, .csv)")
    check_size(image_size)
    if channels not in ("auto", 1, 3, 4):
        raise RequestError(f"dataset.channels is {channels}, but must be auto, 1, 3 or 4", "dataset.channels=auto")
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident is {resident}, but must be auto, true or false", "dataset.resident=auto")
    if not 0 <= max_bad_fraction <= 1:
        raise RequestError(f"dataset.max_bad_fraction is {max_bad_fraction}, but must lie in 0..1")
    check_range(range)
    notes: list[str] = []
    if os.path.isdir(text):
        if label not in ("auto", "none", None):
            raise RequestError(
                f"dataset.label={label} names the column of a list file, but {shown(text)} is a folder",
                "dataset.label=auto for the names of class folders, or dataset.label=none",
            )
        found = scan(text, decode.is_image_name)
        parts, details = _from_folder(found, notes)
        notes += found.notes()
        root = text
    elif text.lower().endswith((".txt", ".csv")):
        require_regular(text)
        parts, details = _from_list(text, label, notes)
        root = os.path.dirname(os.path.abspath(text))
    else:
        require_folder(text, "a folder of images or a list file (.txt, .csv)")
        raise AssertionError
    if label == "none":
        for part in parts.values():
            part.classes = [None] * len(part)

    train, unlabelled = parts["train"], parts.get("unlabelled")
    test = parts.get("test") or parts.get("val")
    if test is not None and "test" in parts and "val" in parts:
        notes.append(f"val: {count(len(parts['val']), 'image')} left aside, test is used")
    if not train and unlabelled:
        train, unlabelled = unlabelled, None
    everything = [f for f in (train, test, unlabelled) if f]
    total = sum(map(len, everything))
    names = sorted(
        (n.encode("utf-8", "surrogateescape"), s) for f in everything for n, s in zip(f.names, f.sizes, strict=True)
    )
    print_ = fingerprint(total, (part for n, s in names for part in (n, str(s).encode())))

    headers, bad = _headers(everything, resident)
    side = _one_size(headers)
    shades = 1 if headers and all(h.mode in decode.GRAY for h in headers.values()) else 3
    depth = int(channels) if channels != "auto" else shades
    complete = len(headers) + len(bad) == total
    if not headers:
        raise _all_bad(bad)
    keep = _decide_resident(resident, side, depth, total, complete, headers)
    if bad:
        check_bad(dict(bad.values()), total, max_bad_fraction)
        fate = "left out" if keep else "replaced when met"
        what = count(len(bad), "unreadable image") + ("" if complete else f" of {len(headers) + len(bad):,} looked at")
        notes.append(f"warning: {what} {fate}: {listing((f'{shown(n)} ({r})' for n, r in bad.values()), 3)}")
        if keep:
            _drop(everything, bad)
    _describe(headers, complete, notes)

    classes = tuple(sorted({c for f in (train, test) if f for c in f.classes if c is not None}))
    if test is None:
        kept, held = split(len(train), holdout, split_seed, _labels(train, classes), train.groups)
        how = "by group" if train.groups else "stratified by class" if classes else "at random"
        if len(held):
            notes.append(
                f"held out: {count(len(held), 'image')} of {len(train):,}, {how} (dataset.holdout={holdout:g})"
            )
            test, train = train.take(held.tolist()), train.take(kept.tolist())
    elif classes:
        missing = {c for c in test.classes if c} - {c for c in train.classes if c}
        if missing and any(train.classes):
            notes.append(f"warning: in the test split only: class {listing(sorted(map(shown, missing)), 5)}")
    if len(classes) == 1:
        notes.append(f"one class only ({shown(classes[0])}): nothing to probe")
    _warn_duplicates(train, test, notes)

    small = image_size or (min(side, 224) if side else 224)
    if side is None and image_size is None:
        under = sum(min(h.width, h.height) < 224 for h in headers.values())
        if under > len(headers) / 2:
            notes.append("most images are smaller than 224: dataset.image_size=96 (or 64) would be faster")
    need = None if keep else 2 * small  # a crop of a tenth of the area is then about as sharp as in ImageNet
    make = _resident if keep else _streamed
    sources = {
        key: make(files, _labels(files, classes), depth, need, range, max_bad_fraction, root, notes)
        for key, files in (("train", train), ("test", test), ("unlabelled", unlabelled))
        if files
    }
    if not len(sources["train"]):
        raise DataError(f"no image of {shown(text)} is left to train on")
    mean, std = image_stats(sources["train"])
    if len(mean) != depth:
        mean, std = (0.5,) * depth, (0.25,) * depth  # not one of the sampled images could be read
    details |= {
        "channels": depth,
        "resident": keep,
        "bad": [*bad.values(), *(item for s in sources.values() for item in s.left_out.items())],
        "modes": dict(Counter(h.mode for h in headers.values())),
        "formats": dict(Counter(h.format for h in headers.values())),
        "sizes": Counter((h.width, h.height) for h in headers.values()).most_common(5),
        "headers_read": len(headers) + len(bad),
        "root": root,
    }
    return Dataset(
        name=name,
        modality="image",
        shape=(depth, small, small),
        train=sources["train"],
        test=sources.get("test"),
        classes=classes,
        unlabelled=sources.get("unlabelled"),
        mean=mean,
        std=std,
        fingerprint=print_,
        notes=notes,
        details=details,
    )


def check_range(value: Any) -> None:
    """`dataset.range` as given: null, "percentile", "minmax" or two rising numbers; else a RequestError."""
    if value in (None, "percentile", "minmax"):
        return
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = value
        if all(isinstance(v, (int, float)) for v in value) and low < high:
            return
    raise RequestError(f"dataset.range={value} is no range of values", "dataset.range=[0,4095]")


# ------------------------------------------------------------------------------------------------ folders


def _from_folder(found: Listing, notes: list[str]) -> tuple[dict[str, _Files], dict[str, Any]]:
    details: dict[str, Any] = {
        "ignored": dict(found.ignored),
        "hidden": found.hidden,
        "special": found.special,
        "dangling": found.dangling,
        "repeated": found.linked_again,
        "empty": list(found.empty),
        "denied": list(found.denied),
    }
    if not found.files:
        raise _nothing(found)
    tops = {parts[0] for parts, _ in found.files if len(parts) > 1}
    loose = any(len(parts) == 1 for parts, _ in found.files)
    kinds = {top: SPLITS.get(top.lower()) for top in tops}
    if tops and not loose and all(kinds.values()) and "train" in kinds.values():
        notes.append("splits by folder: " + ", ".join(f"{shown(t)}/" for t in sorted(tops)))
        parts_ = {}
        layouts = []
        for kind in sorted({k for k in kinds.values() if k}):
            of_kind = [t for t in sorted(tops) if kinds[t] == kind]
            files = _Files()
            for top in of_kind:
                layouts.append(_classes_of(found, (top,), files, notes, quiet=kind == "unlabelled"))
            if kind == "unlabelled":
                files.classes = [None] * len(files)
            parts_[kind] = files
        details["layout"] = f"splits of {layouts[0]}"
        return parts_, details
    files = _Files()
    details["layout"] = _classes_of(found, (), files, notes)
    return {"train": files}, details


def _classes_of(found: Listing, base: tuple[str, ...], out: _Files, notes: list[str], quiet: bool = False) -> str:
    """Add the files below `base` with their classes; returns what the layout is, and says it in the notes."""
    inside = [(parts, size) for parts, size in found.files if parts[: len(base)] == base]
    root = base
    while True:  # step into a folder that is alone
        k = len(root)
        tops = {parts[k] for parts, _ in inside if len(parts) > k + 1}
        loose = sum(len(parts) == k + 1 for parts, _ in inside)
        siblings = {f[k] for f in found.folders if len(f) == k + 1 and f[:k] == root}
        deeper = len(tops) == 1 and not loose and len(siblings) == 1
        only = (*root, *tops)
        if deeper and any(len(parts) > k + 2 for parts, _ in inside):
            if any(len(parts) == k + 2 for parts, _ in inside):
                break  # images and folders in it: it is a class
            root = only
            continue
        break
    k = len(root)
    nested = any(len(parts) > k + 2 for parts, _ in inside)
    for parts, size in inside:
        cls = parts[k] if len(parts) > k + 1 else None
        out.add(os.path.join(found.root, *parts), "/".join(parts), size, cls)
    where = "/".join(map(shown, base)) + ": " if base else ""
    if not tops:
        layout, text = "flat", f"flat folder of {count(len(inside), 'image')}, no labels"
    else:
        layout = "nested class folders" if nested else "class folders"
        text = f"{layout}: {count(len(inside), 'image')} of {count(len(tops), 'class', 'classes')}"
        text += " (the top folders)" if nested else ""
        if loose:
            text += f"; {count(loose, 'image')} beside them without label"
        bare = sorted(siblings - tops)
        if bare and not quiet:
            notes.append(
                f"warning: {where}{count(len(bare), 'folder')} without images, no class: {listing(map(shown, bare), 5)}"
            )
    notes.append(where + text)
    return layout


def _nothing(found: Listing) -> DataError:
    """An empty folder, told by what is there instead."""
    seen = Counter(found.ignored)
    what = ", ".join(f"{n:,} {e}" for e, n in seen.most_common(6))
    folders = len(found.folders) - 1
    sentence = f"no image in {shown(found.root)}"
    if folders > 0:
        sentence += f" and the {count(folders, 'folder')} below it"
    if found.empty:
        sentence += f"; {count(len(found.empty), 'file')} of zero bytes"
    if found.denied:
        sentence += f"; {count(len(found.denied), 'folder')} may not be read: {listing(map(shown, found.denied), 3)}"
    sentence += f"; seen: {what}" if what else ("" if found.empty or found.denied else "; nothing else either")
    other = next((OTHER_KINDS[e] for e, _ in seen.most_common() if e in OTHER_KINDS), None)
    hint = (
        f"dataset={other} reads such files" if other else "dataset.path=FOLDER with .jpg, .png, .webp, .tif ... files"
    )
    return DataError(sentence, hint)


# ------------------------------------------------------------------------------------------------ list files


def _from_list(path: str, label: str | None, notes: list[str]) -> tuple[dict[str, _Files], dict[str, Any]]:
    base = os.path.dirname(os.path.abspath(path))
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = _csv_rows(file, path, label) if path.lower().endswith(".csv") else _txt_rows(file)
            parts: dict[str, _Files] = {}
            groups: dict[str, list[str]] = {}
            absent: list[str] = []
            seen: set[str] = set()
            repeated = 0
            for name, cls, kind, group in rows:
                full = os.path.join(base, os.path.expanduser(name))
                if full in seen:
                    repeated += 1
                    continue
                seen.add(full)
                try:
                    size = os.stat(full).st_size
                except OSError:
                    absent.append(name)
                    continue
                parts.setdefault(kind, _Files()).add(full, name, size, cls)
                if group is not None:
                    groups.setdefault(kind, []).append(group)
    except csv.Error as error:
        raise DataError(f"{shown(path)} is no CSV file: {error}") from error
    except OSError as error:
        raise RequestError(f"{shown(path)} cannot be read: {error.strerror}") from error
    total = sum(map(len, parts.values()))
    if not total:
        if absent:
            raise DataError(
                f"none of the {count(len(absent), 'file')} named in {shown(path)} exists, "
                f"such as {shown(os.path.join(base, absent[0]))}",
                f"relative paths are relative to the list's own folder, {shown(base)}",
            )
        raise DataError(f"{shown(path)} names no file", "one path a line, or a CSV with the header path,label")
    if absent:
        notes.append(f"warning: {count(len(absent), 'file')} of the list missing: {listing(map(shown, absent), 3)}")
    if repeated:
        notes.append(f"{count(repeated, 'repeated line')} of the list left out")
    labels = {c for f in parts.values() for c in f.classes if c is not None}
    said = f"{count(len(labels), 'class', 'classes')}" if labels else "no labels"
    notes.append(f"list file: {count(total, 'image')}, {said}")
    for kind, members in groups.items():
        parts[kind].groups = members
    if "train" not in parts and "unlabelled" not in parts:
        raise DataError(f"{shown(path)} has no row of the split train; it has {', '.join(sorted(parts))}")
    parts.setdefault("train", _Files())
    return parts, {"layout": "list file", "missing": absent, "repeated": repeated}


def _txt_rows(file: Iterable[str]) -> Iterable[tuple[str, str | None, str, str | None]]:
    for line in file:
        name = line.rstrip("\r\n")
        if name.strip():
            yield name, None, "train", None


def _csv_rows(file: Iterable[str], path: str, label: str | None) -> Iterable[tuple[str, str | None, str, str | None]]:
    reader = csv.DictReader(file, strict=True)
    columns = [c.strip() for c in reader.fieldnames or []]
    reader.fieldnames = columns
    if "path" not in columns:
        raise DataError(
            f"{shown(path)} has no column named path; its header is {shown(','.join(columns)) or 'empty'}",
            "the first line must be path,label (and, where wanted, split and group)",
        )
    column = "label" if label in ("auto", None, "none") else str(label)
    if column not in columns and label not in ("auto", None, "none"):
        raise RequestError(
            f"dataset.label={label} is no column of {shown(path)}", f"columns: {listing(map(shown, columns))}"
        )
    for number, row in enumerate(reader, 2):
        name = row.get("path")
        if None in row or None in row.values():
            raise DataError(
                f"{shown(path)}, line {number}: has not the {len(columns)} columns of the header",
                f"mend that line; each wants {', '.join(columns)} (a comma in a name goes in double quotes)",
            )
        if not name:
            continue
        value = (row.get(column) or "").strip()
        kind = (row.get("split") or "train").strip().lower()
        if kind not in SPLITS:
            raise DataError(
                f"{shown(path)}, line {number}: split is {shown(kind)}, not one of train, val, test, unlabelled"
            )
        yield name, value or None, SPLITS[kind], row.get("group")


# ------------------------------------------------------------------------------------------------ headers


def _threads() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def _map(work: Callable[[int], Any], n: int, label: str) -> list[Any]:
    """work(0) ... work(n - 1) in threads (Pillow lets them run together), in order, with progress."""
    out = []
    with ThreadPoolExecutor(_threads()) as pool:
        for i, result in enumerate(pool.map(work, range(n), chunksize=1)):
            out.append(result)
            if i % 64 == 63 or i + 1 == n:
                talk.progress(label, i + 1, n)
    return out


def _headers(groups: list[_Files], resident: bool | str) -> tuple[dict[str, decode.Header], dict[str, tuple[str, str]]]:
    """Headers by path, and path -> (name, reason) of the files whose header is bad.

    First of a fixed sample; of all only where they could be kept in memory, that is, where the sample has one size.
    """
    paths = [(p, n) for f in groups for p, n in zip(f.paths, f.names, strict=True)]
    headers: dict[str, decode.Header] = {}
    bad: dict[str, str] = {}

    def read(chosen: list[tuple[str, str]]) -> None:
        def one(i: int) -> decode.Header | str:
            try:
                return decode.header(chosen[i][0])
            except decode.BadImage as error:
                return error.message

        for (path, _), result in zip(chosen, _map(one, len(chosen), "reading image headers"), strict=True):
            if isinstance(result, str):
                bad[path] = result
            else:
                headers[path] = result

    sample = [paths[i] for i in order(derive(0, "headers"), 0, len(paths))[:SAMPLED_HEADERS].tolist()]
    read(sample)
    if resident is not False and _one_size(headers) and len(paths) > len(sample):
        h = next(iter(headers.values()))
        if resident is True or h.width * h.height * len(paths) <= _budget():
            first = set(headers) | set(bad)
            read([p for p in paths if p[0] not in first])
    return headers, {p: (n, bad[p]) for p, n in paths if p in bad}


def _drop(groups: list[_Files], bad: dict[str, tuple[str, str]]) -> None:
    for files in groups:
        if any(p in bad for p in files.paths):
            good = files.take(i for i, p in enumerate(files.paths) if p not in bad)
            files.paths, files.names, files.sizes, files.classes = good.paths, good.names, good.sizes, good.classes
            files.groups = good.groups


def _one_size(headers: dict[str, decode.Header]) -> int | None:
    """The short side when all images have one size, else None."""
    sizes = {(h.width, h.height) for h in headers.values()}
    return min(next(iter(sizes))) if len(sizes) == 1 else None


def _budget() -> int:
    return min(RESIDENT_BYTES, free_memory() // 2)


def _decide_resident(
    wish: bool | str, side: int | None, depth: int, n: int, complete: bool, headers: dict[str, decode.Header]
) -> bool:
    if wish is False or not headers:
        return False
    if side is None:
        if wish is True:
            some = Counter((h.width, h.height) for h in headers.values())
            raise RequestError(
                f"dataset.resident=true wants images of one size, but there are {len(some)} sizes, such as "
                + ", ".join(f"{w}x{h}" for (w, h), _ in some.most_common(3)),
                "dataset.resident=auto",
            )
        return False
    h = next(iter(headers.values()))
    return wish is True or (complete and h.width * h.height * depth * n <= _budget())


def _describe(headers: dict[str, decode.Header], complete: bool, notes: list[str]) -> None:
    few = "" if complete else f" (of {len(headers):,} looked at)"
    sizes = Counter((h.width, h.height) for h in headers.values())
    if len(sizes) == 1:
        (w, h), _ = sizes.most_common(1)[0]
        notes.append(f"all {w}x{h}{few}")
    else:
        short = sorted(min(s) for s in sizes.elements())
        notes.append(f"{len(sizes):,} sizes, short side {short[0]}..{short[-1]}, median {short[len(short) // 2]}{few}")
    deep = sum(h.mode in decode.DEEP for h in headers.values())
    if deep:
        notes.append(
            f"{count(deep, 'image')} of over 8 bits a pixel{few}, scaled to 0..255 (dataset.range=[lo,hi] says how)"
        )
    alpha = sum(h.alpha for h in headers.values())
    if alpha:
        notes.append(f"{count(alpha, 'image')} with transparency{few}, laid on black")
    animated = sum(h.animated for h in headers.values())
    if animated:
        notes.append(f"{count(animated, 'image')} with several frames{few}, the first is taken")


def _all_bad(bad: dict[str, tuple[str, str]]) -> DataError:
    shown_ = "; ".join(f"{shown(n)}: {r}" for n, r in list(bad.values())[:3])
    return DataError(f"none of the {count(len(bad), 'image')} looked at can be read: {shown_}", INSPECT)


INSPECT = "sslcli data inspect dataset=image_folder dataset.path=PATH --strict lists them all"


# ------------------------------------------------------------------------------------------------ sources


def _labels(files: _Files, classes: tuple[str, ...]) -> Tensor | None:
    if not classes or not any(c is not None for c in files.classes):
        return None
    index: dict[str | None, int] = {c: i for i, c in enumerate(classes)}
    return torch.tensor([index.get(c, -1) for c in files.classes], dtype=torch.int64)


def _streamed(
    files: _Files,
    labels: Tensor | None,
    depth: int,
    need: int | None,
    value_range: Any,
    max_bad: float,
    root: str,
    notes: list[str],
) -> Source:
    return FolderSource(files.paths, labels, files.names, depth, need, value_range, max_bad, files.sizes)


def _resident(
    files: _Files,
    labels: Tensor | None,
    depth: int,
    need: int | None,
    value_range: Any,
    max_bad: float,
    root: str,
    notes: list[str],
) -> Source:
    """All decoded, (n, C, H, W) uint8; what cannot be decoded is left out, and said."""
    first = decode.header(files.paths[0])
    x = torch.empty(len(files), depth, first.height, first.width, dtype=torch.uint8)

    def one(i: int) -> str | None:
        try:
            image = decode.load(files.paths[i], depth, None, value_range)
        except decode.BadImage as error:
            return error.message
        if image.size != (first.width, first.height):
            return f"is {image.width}x{image.height}, not {first.width}x{first.height}"
        pixels = torch.from_numpy(np.array(image))
        x[i] = pixels[None] if depth == 1 else pixels.permute(2, 0, 1)
        return None

    reasons = _map(one, len(files), "decoding images")
    bad = {files.names[i]: r for i, r in enumerate(reasons) if r is not None}
    if bad:
        check_bad(bad, len(files), max_bad)
        notes.append(f"warning: {count(len(bad), 'unreadable image')} left out: {listing(map(shown, bad), 3)}")
        good = torch.tensor([r is None for r in reasons])
        ids = good.nonzero().flatten()
        source = ArraySource(x[ids], None if labels is None else labels[ids], [files.names[i] for i in ids.tolist()])
        source.left_out = bad
        return source
    return ArraySource(x, labels, files.names)


def check_bad(bad: dict[str, str], n: int, fraction: float) -> None:
    """DataError when more than ceil(fraction * n) samples are unreadable."""
    if len(bad) > int(np.ceil(fraction * n)):
        some = "; ".join(f"{shown(name)}: {reason}" for name, reason in list(bad.items())[:3])
        raise DataError(
            f"{len(bad):,} of {n:,} images cannot be read, more than {fraction:.1%}: {some}",
            f"{INSPECT}; dataset.max_bad_fraction=0.1 would go on without them",
        )


def _warn_duplicates(train: _Files, test: _Files | None, notes: list[str]) -> None:
    """How many test files are byte for byte in train: files of equal size are compared by hash."""
    if not test:
        return
    sizes = set(train.sizes) & set(test.sizes)
    pairs = [[p for p, s in zip(f.paths, f.sizes, strict=True) if s in sizes] for f in (train, test)]
    if sum(map(len, pairs)) > MAX_LISTED:
        notes.append("duplicates between train and test not looked for (too many files of equal size)")
        return

    def hashed(paths: list[str]) -> list[bytes | None]:
        def one(i: int) -> bytes | None:
            try:
                return content_hash(paths[i])
            except OSError:
                return None  # it will be counted when it is read

        return _map(one, len(paths), "comparing files")

    known = set(hashed(pairs[0])) - {None}
    twice = sum(h in known for h in hashed(pairs[1]))
    if twice:
        notes.append(f"warning: {count(twice, 'test image')} also in train (same bytes): numbers will look too good")
