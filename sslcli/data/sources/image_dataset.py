"""A `Dataset` of image files: from a folder, a list file or tar shards."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.files.string_table import StringTable
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.images import decode
from sslcli.data.images.encoded import Decoder, EncodedImages
from sslcli.data.images.headers import FileLoader, Headers, describe_headers, fits_memory, read_headers
from sslcli.data.images.options import ImageOptions
from sslcli.data.images.value_range import find_range
from sslcli.data.loading import bad_samples
from sslcli.data.notify import shown
from sslcli.data.sources.duplicates import warn_duplicates
from sslcli.data.split import NOTHING_HELD_OUT, split, split_hash
from sslcli.data.stats import dark_notes, image_stats
from sslcli.data.subset import pretrain_source
from sslcli.errors import DataError


class ImageFiles(EncodedImages):
    """Image files."""

    names: StringTable

    def __init__(self, files: FileList, labels: Tensor | None, decoder: Decoder, max_bad_fraction: float = 0.01):
        # not lists: these would be copied into each worker, object by object
        self.paths, self.names, self.sizes = StringTable(files.paths), StringTable(files.names), array("q", files.sizes)
        self.labels, self.decoder, self.max_bad_fraction = labels, decoder, max_bad_fraction

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> str | bytes:
        """A path or the bytes, for `decode`. Raises BadImage."""
        return self.paths[index]

    def content(self, index: int) -> bytes:
        """Raises BadImage."""
        file = self.file(index)
        return decode.read_content(file) if isinstance(file, str) else file

    def decode(self, index: int) -> Any:
        return self.decoder(self.file(index))

    def digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self.content(index)).digest()
        except decode.BadImage:
            return os.fsencode(self.names[index])


def build_dataset(
    found: FolderContents,
    asked: ImageOptions,
    notes: list[str],
    source: Callable[..., ImageFiles] = ImageFiles,
    load: FileLoader = str,
) -> Dataset:
    """A Dataset of what was found. `load`: a path of `found` to what `decode` takes; `source`: made of the Files of a split,
    its labels, a Decoder and the limit of unreadable ones."""
    parts = _select_splits(found, asked, notes)
    kinds, everything = list(parts), list(parts.values())
    total = sum(map(len, everything))

    headers = read_headers(everything, asked.resident, asked.max_pixels, load)
    if not headers.good:
        raise _all_bad_error(headers, everything)
    bad = found.missing | _by_name(headers.bad, everything)
    bad_samples.check_limit(bad, total + len(found.missing), asked.max_bad_fraction)
    depth = int(asked.channels) if asked.channels != "auto" else headers.channels
    keep = fits_memory(asked.resident, headers, depth)
    describe_headers(headers, notes)

    classes = found.order({c for k, f in parts.items() if k != "unlabelled" for c in f.classes if c is not None})
    held = _hold_out(parts, classes, asked.holdout, asked.split_seed, notes)
    notes += class_warnings(
        classes, sum(c is not None for k, f in parts.items() if k != "unlabelled" for c in f.classes)
    )
    if len(classes) == 1:
        notes.append(f"one class only ({shown(classes[0])}): nothing to probe")
    warn_duplicates(parts["train"], parts.get("test"), load, notes)

    small = asked.image_size or _view_size(asked.max_size, headers, notes)
    need = None if keep else 2 * small  # a crop of a tenth of the area is then about as sharp as in ImageNet
    value_range = find_range(asked.range, headers, parts, asked.max_pixels, load, notes)
    decoder = Decoder(depth, need, value_range, asked.max_pixels)
    sources = {k: source(f, _labels(f, classes), decoder, asked.max_bad_fraction) for k, f in parts.items() if f}
    _set_groups(sources, parts)
    if keep and headers.size:
        for made in sources.values():
            made.decode_all(*headers.size)
    for made in sources.values():
        bad |= {made.name_of(i): reason for i, reason in made.bad.items()}
    if bad:
        bad_samples.check_limit(bad, total + len(found.missing), asked.max_bad_fraction)
        notes.append(bad_samples.unreadable_note(bad, None if keep else headers.sampled))
    if len(sources["train"].bad) == len(sources["train"]):
        raise DataError(f"no image of {shown(found.root)} is left to train on", bad_samples.INSPECT_HINT)
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
        unlabelled=pretrain_source(sources["train"], sources.get("unlabelled"), asked.pretrain_on, notes),
        mean=mean,
        std=std,
        fingerprint=_fingerprint(everything, kinds if found.split_in_fingerprint else ()),
        split=held,
        notes=notes,
        details={
            **found.details,
            "channels": depth,
            "range": value_range if any(h.deep for h in headers.good.values()) else None,
            "resident": keep,
            "bad": bad,
            "lost": len(found.missing),
            **headers.summary(),
            "root": found.root,
        },
    )


def _select_splits(found: FolderContents, asked: ImageOptions, notes: list[str]) -> dict[str, FileList]:
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
    if measures is None and (
        found.explicit_splits or asked.holdout == 0 or len(set(parts["train"].classes) - {None}) < 2
    ):
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
        notes.append(f"{warning}{kind}: {plural(len(files), 'image')} left aside, {why}{instead}")
    return {kind: parts[kind] for kind in ("train", "test", "unlabelled") if kind in parts}


def _hold_out(
    parts: dict[str, FileList], classes: tuple[str, ...], holdout: float | str, split_seed: int, notes: list[str]
) -> str:
    """Makes `test` where there is none; returns the hash of that split."""
    train, test = parts["train"], parts.get("test")
    if test is None:
        kept, held = split(len(train), holdout, split_seed, _labels(train, classes), train.groups)
        how = "by group" if train.groups else "stratified by class" if classes else "at random"
        if len(held):
            notes.append(f"held out: {plural(len(held), 'image')} of {len(train):,}, {how}")
            parts["test"], parts["train"] = train.take(held.tolist()), train.take(kept.tolist())
        else:
            notes.append(NOTHING_HELD_OUT)
        return split_hash(held)
    return ""


def _set_groups(sources: Mapping[str, ImageFiles], parts: Mapping[str, FileList]) -> None:
    """Gives the samples the groups that a list file names."""
    names = sorted({g for files in parts.values() for g in files.groups or ()})
    index = {name: i for i, name in enumerate(names)}
    for kind, made in sources.items():
        if (groups := parts[kind].groups) is not None:
            made.groups = torch.tensor([index[g] for g in groups])


def _labels(files: FileList, classes: tuple[str, ...]) -> Tensor | None:
    if not classes or not any(c is not None for c in files.classes):
        return None
    index: dict[str | None, int] = {c: i for i, c in enumerate(classes)}
    return torch.tensor([index.get(c, -1) for c in files.classes], dtype=torch.int64)


def _view_size(max_size: int, headers: Headers, notes: list[str]) -> int:
    """The side of a view where none was asked for."""
    if headers.size:
        return min(*headers.size, max_size)
    under = sum(min(h.width, h.height) < max_size for h in headers.good.values())
    if under > len(headers.good) / 2:
        smaller = "96 (or 64)" if max_size > 96 else f"{max_size // 2}"
        notes.append(f"most images are smaller than {max_size}: dataset.image_size={smaller} would be faster")
    return max_size


def _by_name(bad: dict[str, str], groups: Sequence[FileList]) -> dict[str, str]:
    names = {p: n for files in groups for p, n in zip(files.paths, files.names, strict=True) if p in bad}
    return {names[p]: reason for p, reason in bad.items()}


def _all_bad_error(headers: Headers, groups: Sequence[FileList]) -> DataError:
    some = bad_samples.format_examples(_by_name(headers.bad, groups))
    return DataError(
        f"none of the {plural(len(headers.bad), 'image')} looked at can be read: {some}", bad_samples.INSPECT_HINT
    )


def _fingerprint(groups: Sequence[FileList], kinds: Sequence[str]) -> str:
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
