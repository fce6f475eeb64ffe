"""A user's images: class folders, nested or flat folders (`layout.py`), or a list file (`list_file.py`).

What was found is said in the notes. Where there is no held-out split, one is made (`dataset.holdout`, stratified where
there are labels).
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcli.data import notify
from sslcli.data.dataset import Dataset
from sslcli.data.files.label_text import odd_notes
from sslcli.data.files.list_file import from_list
from sslcli.data.files.string_table import Strings
from sslcli.data.folders.layout import OTHER_KINDS, READINGS, Files, Found, check_splits, from_folder, is_chosen
from sslcli.data.folders.scan import (
    content_hash,
    fingerprint,
    require_folder,
    require_path,
    require_regular,
    scan,
    unpacking,
)
from sslcli.data.images import decode
from sslcli.data.images.bit_depth import check_range
from sslcli.data.images.encoded import Decoder, Pictures
from sslcli.data.images.headers import Headers, Load, describe, each, fits_memory, read_headers
from sslcli.data.images.value_range import range_of
from sslcli.data.loading import bad_samples
from sslcli.data.notify import count, shown
from sslcli.data.public.datasets import MAX_SIZE, check_size
from sslcli.data.split import NOTHING_HELD_OUT, split, split_hash
from sslcli.data.stats import dark_notes, image_stats
from sslcli.data.subset import check_pretrain_on, pretrained_on
from sslcli.errors import DataError, RequestError

MAX_COMPARED = 20_000  # files compared for duplicates, at most


class FolderSource(Pictures):
    """Image files."""

    names: Strings

    def __init__(self, files: Files, labels: Tensor | None, decoder: Decoder, max_bad_fraction: float = 0.01):
        # not lists: these would be copied into each worker, object by object
        self.paths, self.names, self.sizes = Strings(files.paths), Strings(files.names), array("q", files.sizes)
        self.labels, self.decoder, self.max_bad_fraction = labels, decoder, max_bad_fraction

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> str | bytes:
        """A path or the bytes, for `decode`. Raises BadImage."""
        return self.paths[index]

    def content(self, index: int) -> bytes:
        """Raises BadImage."""
        file = self.file(index)
        return decode.content(file) if isinstance(file, str) else file

    def decode(self, index: int) -> Any:
        return self.decoder(self.file(index))

    def digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self.content(index)).digest()
        except decode.BadImage:
            return os.fsencode(self.names[index])


def image_folder(
    path: str | None = None,
    name: str = "image_folder",
    image_size: int | None = None,
    channels: int | str = "auto",
    label: str | None = "auto",
    holdout: float | str = "auto",
    split_seed: int = 0,
    resident: bool | str = "auto",
    range: Any = "auto",
    max_bad_fraction: float = 0.01,
    max_pixels: int = decode.MAX_PIXELS,
    splits: Any = "auto",
    pretrain_on: str = "unlabelled",  # what runs mean that were made before there was this key
    max_size: int = MAX_SIZE,
) -> Dataset:
    """A folder of images or a list file, as a Dataset.

    `image_size`: side of a view; null is the images' own side where all have one size of at most `max_size`, else that.
    `channels`: 1, 3, 4 or auto (1 where every image is grey, else 3). `label`: auto, none, or the column of a CSV list; of a
    folder top or parent: the names of the folders below the split, or of those that hold the images.
    `splits`: auto (by the names of folders), none (every folder is a class), or {train: FOLDER, test: [FOLDER, FOLDER]}.
    `pretrain_on`: where there is an unlabelled split, `all` (train and unlabelled) or `unlabelled`.
    `resident`: keep all decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `range`: which values of 16-bit and float images become 0 and 255: auto, [lo, hi], minmax, ... (see `levels`).
    `max_pixels`: a larger image is unreadable; looked at before it is decoded.

    Raises RequestError for paths and values, DataError for what lies there.
    """
    asked = Asked(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size,
    )  # fmt: skip
    notes: list[str] = []
    return dataset_of(_find(require_path(path, WANTED), asked, notes), asked, notes)


@dataclass(frozen=True)
class Asked:
    """The settings of `image_folder`, whatever holds the images. RequestError for impossible ones."""

    name: str
    image_size: int | None
    channels: int | str
    label: str | None
    holdout: float | str
    split_seed: int
    resident: bool | str
    range: Any
    max_bad_fraction: float
    max_pixels: int
    splits: Any
    pretrain_on: str
    max_size: int = MAX_SIZE

    def __post_init__(self) -> None:
        check_size(self.image_size)
        check_size(self.max_size, "max_size")
        check_splits(self.splits)
        check_pretrain_on(self.pretrain_on)
        _check_values(self.channels, self.resident, self.max_bad_fraction, self.max_pixels, self.range)


def dataset_of(
    found: Found, asked: Asked, notes: list[str], source: Callable[..., FolderSource] = FolderSource, load: Load = str
) -> Dataset:
    """A Dataset of what was found. `load`: a path of `found` to what `decode` takes; `source`: made of the Files of a split,
    its labels, a Decoder and the limit of unreadable ones."""
    parts = _choose(found, asked, notes)
    kinds, everything = list(parts), list(parts.values())
    total = sum(map(len, everything))

    headers = read_headers(everything, asked.resident, asked.max_pixels, load)
    if not headers.good:
        raise _all_bad(headers, everything)
    bad = found.lost | _by_name(headers.bad, everything)
    bad_samples.check_limit(bad, total + len(found.lost), asked.max_bad_fraction)
    depth = int(asked.channels) if asked.channels != "auto" else headers.channels
    keep = fits_memory(asked.resident, headers, depth)
    describe(headers, notes)

    classes = found.order({c for k, f in parts.items() if k != "unlabelled" for c in f.classes if c is not None})
    held = _hold_out(parts, classes, asked.holdout, asked.split_seed, notes)
    notes += odd_notes(classes, sum(c is not None for k, f in parts.items() if k != "unlabelled" for c in f.classes))
    if len(classes) == 1:
        notes.append(f"one class only ({shown(classes[0])}): nothing to probe")
    _warn_duplicates(parts["train"], parts.get("test"), load, notes)

    small = asked.image_size or _side(asked.max_size, headers, notes)
    need = None if keep else 2 * small  # a crop of a tenth of the area is then about as sharp as in ImageNet
    value_range = range_of(asked.range, headers, parts, asked.max_pixels, load, notes)
    decoder = Decoder(depth, need, value_range, asked.max_pixels)
    sources = {k: source(f, _labels(f, classes), decoder, asked.max_bad_fraction) for k, f in parts.items() if f}
    _group(sources, parts)
    if keep and headers.size:
        for made in sources.values():
            made.decode_all(*headers.size)
    for made in sources.values():
        bad |= {made.name_of(i): reason for i, reason in made.bad.items()}
    if bad:
        bad_samples.check_limit(bad, total + len(found.lost), asked.max_bad_fraction)
        notes.append(bad_samples.note(bad, None if keep else headers.looked_at))
    if len(sources["train"].bad) == len(sources["train"]):
        raise DataError(f"no image of {shown(found.root)} is left to train on", bad_samples.INSPECT)
    mean, std = image_stats(sources["train"])
    if len(mean) != depth:
        mean, std = (0.5,) * depth, (0.25,) * depth  # not one of the sampled images could be read
    notes += dark_notes(mean, std)
    return Dataset(
        name=asked.name,
        modality="image",
        shape=(depth, small, small),
        train=sources["train"],
        test=sources.get("test"),
        classes=classes,
        unlabelled=pretrained_on(sources["train"], sources.get("unlabelled"), asked.pretrain_on, notes),
        mean=mean,
        std=std,
        fingerprint=_fingerprint(everything, kinds if found.known_by_split else ()),
        split=held,
        notes=notes,
        details={
            **found.details,
            "channels": depth,
            "range": value_range if any(h.deep for h in headers.good.values()) else None,
            "resident": keep,
            "bad": bad,
            "lost": len(found.lost),
            **headers.summary(),
            "root": found.root,
        },
    )


OTHER_TABLES = (".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".pkl", ".lst")
WANTED = "a folder of images or a list file (.txt, .csv, .tsv)"


def _check_values(channels: Any, resident: Any, max_bad_fraction: float, max_pixels: int, value_range: Any) -> None:
    if channels not in ("auto", 1, 3, 4):
        raise RequestError(f"dataset.channels is {channels}, but must be auto, 1, 3 or 4", "dataset.channels=auto")
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident is {resident}, but must be auto, true or false", "dataset.resident=auto")
    if not 0 <= max_bad_fraction <= 1:
        raise RequestError(f"dataset.max_bad_fraction is {max_bad_fraction}, but must lie in 0..1")
    if max_pixels < 1:
        raise RequestError(f"dataset.max_pixels is {max_pixels}, but must be at least 1", "dataset.max_pixels=64000000")
    check_range(value_range)


def _find(path: str, asked: Asked, notes: list[str]) -> Found:
    label = asked.label
    if os.path.isdir(path):
        if label is not None and label not in READINGS:
            raise RequestError(
                f"dataset.label={label} names the column of a list file, but {shown(path)} is a folder",
                "dataset.label=top or parent for the names of folders, or dataset.label=none; labels in a file: labels=FILE.csv",
            )
        return from_folder(scan(path, decode.is_image_name), notes, label, asked.splits)
    if not path.lower().endswith((".txt", ".csv", ".tsv")):
        ending = os.path.splitext(path)[1].lower()
        if ending in OTHER_KINDS:
            hint = unpacking(path) or f"dataset={OTHER_KINDS[ending]} {notify.typed('dataset.path', path)}"
            raise RequestError(f"dataset.path={shown(path)} is a file; {WANTED} is wanted", hint)
        if ending in OTHER_TABLES:
            hint = "save it as a .csv file with the header path,label"
            raise RequestError(f"dataset.path={shown(path)} is a file; {WANTED} is wanted", hint)
        require_folder(path, WANTED)
    if is_chosen(asked.splits):
        raise RequestError(
            f"dataset.splits names folders, but {shown(path)} is a list file",
            "a column `split` of the list says the splits",
        )
    return from_list(require_regular(path), label, notes)


def _choose(found: Found, asked: Asked, notes: list[str]) -> dict[str, Files]:
    """The splits in use: train, test (the one of test and val that has labels), unlabelled."""
    parts = {kind: files for kind, files in found.parts.items() if files}
    if asked.label == "none":
        for files in parts.values():
            files.classes = [None] * len(files)
    if "train" not in parts and "unlabelled" in parts:
        parts["train"] = parts.pop("unlabelled")
    if "train" not in parts:
        raise DataError(f"no image of {shown(found.root)} is left to train on")
    aside = {kind: parts.pop(kind) for kind in ("test", "val") if kind in parts}
    measures = next((k for k, files in aside.items() if any(files.classes)), None)
    if measures is None and (found.chosen or asked.holdout == 0 or len(set(parts["train"].classes) - {None}) < 2):
        measures = next(iter(aside), None)  # no labels are looked for
    if measures is not None:
        parts["test"] = aside.pop(measures)
    for kind, files in aside.items():
        why = (
            f"{measures} is used"
            if measures and (any(files.classes) or not any(parts["test"].classes))
            else "no labels"
        )
        instead = f"; {measures} measures" if measures and why == "no labels" else ""
        warning = "warning: " if why == "no labels" else ""
        notes.append(f"{warning}{kind}: {count(len(files), 'image')} left aside, {why}{instead}")
    return {kind: parts[kind] for kind in ("train", "test", "unlabelled") if kind in parts}


def _hold_out(
    parts: dict[str, Files], classes: tuple[str, ...], holdout: float | str, split_seed: int, notes: list[str]
) -> str:
    """Makes `test` where there is none; returns the hash of that split."""
    train, test = parts["train"], parts.get("test")
    if test is None:
        kept, held = split(len(train), holdout, split_seed, _labels(train, classes), train.groups)
        how = "by group" if train.groups else "stratified by class" if classes else "at random"
        if len(held):
            notes.append(f"held out: {count(len(held), 'image')} of {len(train):,}, {how}")
            parts["test"], parts["train"] = train.take(held.tolist()), train.take(kept.tolist())
        else:
            notes.append(NOTHING_HELD_OUT)
        return split_hash(held)
    return ""


def _group(sources: Mapping[str, FolderSource], parts: Mapping[str, Files]) -> None:
    """Gives the samples the groups that a list file names."""
    names = sorted({g for files in parts.values() for g in files.groups or ()})
    index = {name: i for i, name in enumerate(names)}
    for kind, made in sources.items():
        if (groups := parts[kind].groups) is not None:
            made.groups = torch.tensor([index[g] for g in groups])


def _labels(files: Files, classes: tuple[str, ...]) -> Tensor | None:
    if not classes or not any(c is not None for c in files.classes):
        return None
    index: dict[str | None, int] = {c: i for i, c in enumerate(classes)}
    return torch.tensor([index.get(c, -1) for c in files.classes], dtype=torch.int64)


def _side(max_size: int, headers: Headers, notes: list[str]) -> int:
    """The side of a view where none was asked for."""
    if headers.size:
        return min(*headers.size, max_size)
    under = sum(min(h.width, h.height) < max_size for h in headers.good.values())
    if under > len(headers.good) / 2:
        smaller = "96 (or 64)" if max_size > 96 else f"{max_size // 2}"
        notes.append(f"most images are smaller than {max_size}: dataset.image_size={smaller} would be faster")
    return max_size


def _by_name(bad: dict[str, str], groups: Sequence[Files]) -> dict[str, str]:
    names = {p: n for files in groups for p, n in zip(files.paths, files.names, strict=True) if p in bad}
    return {names[p]: reason for p, reason in bad.items()}


def _all_bad(headers: Headers, groups: Sequence[Files]) -> DataError:
    some = bad_samples.some(_by_name(headers.bad, groups))
    return DataError(
        f"none of the {count(len(headers.bad), 'image')} looked at can be read: {some}", bad_samples.INSPECT
    )


def _fingerprint(groups: Sequence[Files], kinds: Sequence[str]) -> str:
    """Of names and sizes (reading the contents of a million files takes too long), and where `kinds` are given of the split
    that each is in."""
    files = sorted(
        (name.encode("utf-8", "surrogateescape"), size, kinds[i] if kinds else "")
        for i, f in enumerate(groups)
        for name, size in zip(f.names, f.sizes, strict=True)
    )
    parts = (
        part for name, size, kind in files for part in (name, str(size).encode(), kind.encode())[: 2 + bool(kinds)]
    )
    return fingerprint(len(files), parts)


def _warn_duplicates(train: Files, test: Files | None, load: Load, notes: list[str]) -> None:
    """How many test files are byte for byte in train: files of equal size are compared by hash."""
    if not test:
        return
    sizes = set(train.sizes) & set(test.sizes)
    pairs = [[p for p, s in zip(f.paths, f.sizes, strict=True) if s in sizes] for f in (train, test)]
    if sum(map(len, pairs)) > MAX_COMPARED:
        notes.append("duplicates between train and test not looked for (too many files of equal size)")
        return

    def hashed(paths: list[str]) -> list[bytes | None]:
        def one(i: int) -> bytes | None:
            try:
                file = load(paths[i])
                return content_hash(file) if isinstance(file, str) else hashlib.sha256(file).digest()
            except (OSError, decode.BadImage):
                return None  # it will be counted when it is read

        return each(one, len(paths), "comparing files")

    known = set(hashed(pairs[0])) - {None}
    twice = sum(h in known for h in hashed(pairs[1]))
    if twice:
        notes.append(f"warning: {count(twice, 'test image')} also in train (same bytes): numbers will look too good")
