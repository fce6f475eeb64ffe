"""The splits, classes and groups of the images in tar shards."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sslcli.console import escape, plural
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.layout import LABEL_RULES, Layout, detect_layout
from sslcli.data.folders.split_folders import PathParts, is_explicit
from sslcli.data.folders.split_names import matching_splits
from sslcli.data.images.options import ImageOptions
from sslcli.data.sources.tar_files.index import ShardIndex
from sslcli.data.sources.tar_files.shards import TarShards
from sslcli.errors import DataError, RequestError


class TarImage(NamedTuple):
    shard: int
    name: str
    offset: int
    size: int
    label: str | None
    key: str | None  # the key of the sample that the label belongs to


def read_contents(
    shards: TarShards, indices: list[ShardIndex], options: ImageOptions, notes: list[str], by_sample: bool
) -> FolderContents:
    """The images of all shards, by split. `by_sample`: images of one sample form a group. Raises DataError without images,
    RequestError where `dataset.label` matches nothing."""
    label = options.label
    base = os.path.commonpath([os.path.dirname(p) for p in shards.paths])
    shard_names = [os.path.relpath(p, base) for p in shards.paths]
    ignored = sum((index.ignored for index in indices), Counter[str]())
    ignored_text = ", ".join(f"{n:,} {escape(e)}" for e, n in ignored.most_common(6))
    images = [TarImage(shard, *sample) for shard, index in enumerate(indices) for sample in index.samples]
    if not images:
        hint = "images are recognized by their extension: .jpg, .png, ..." if "no extension" in ignored else None
        seen = f"; it contains: {ignored_text}" if ignored_text else ""
        raise DataError(f"no image in {plural(len(shard_names), 'tar file')}{seen}", hint)
    parser = LabelParser()
    labels = normalize_numbers([parser.label(image.label) for image in images])
    by_folder = label in (None, *LABEL_RULES) and not any(labels)
    if not by_folder and not any(labels):
        raise RequestError(
            f"dataset.label={escape(str(label))}: no sample has a .{escape(str(label))} file or such an entry in its .json",
            "dataset.label=auto",
        )
    folders = _shard_folders(shard_names)
    paths = [(*folders[i.shard], *(p for p in i.name.split("/") if p not in ("", "."))) for i in images]
    layout_notes: list[str] = []
    layout = detect_layout(paths, (), base, label if by_folder else "none", options.splits, layout_notes)
    shared = _shared_keys(images, layout)
    parts: dict[str, FileList] = {}
    for image, cls, kind, folder in zip(images, labels, layout.kinds, layout.classes, strict=True):
        if kind is None:
            continue
        files = parts.setdefault(kind, FileList())
        shard_name = shard_names[image.shard]
        files.add(f"{image.shard}:{image.offset}:{image.size}", f"{shard_name}/{image.name}", image.size, cls or folder)
        if by_sample and shared:
            group = image.key if (image.shard, image.key) in shared else image.name
            files.groups = files.groups or []
            files.groups.append(f"{shard_name}/{group}")

    used = [c for kind, files in parts.items() for c in files.classes if kind != "unlabelled"]
    classes = {c for c in used if c is not None}
    notes.append(f"{plural(len(shard_names), 'tar file')}: {plural(len(images), 'image')}, {_describe(used)}")
    notes += [note for note in layout_notes if (by_folder and classes) or not note.endswith("no labels")]
    notes += parser.notes()
    stems = Counter(os.path.splitext(name)[0] for files in parts.values() for name in files.names)
    if n := len(shared) or sum(count > 1 for count in stems.values()):
        together = ", and all images of a sample are in one split" if shared and by_sample else ""
        notes.append(f"{plural(n, 'sample')} with several images: each image is a sample of its own{together}")
    if ignored_text:
        notes.append(f"ignored: {ignored_text}")
    return FolderContents(
        base,
        parts,
        {"layout": "tar", "shards": len(shard_names), "ignored": dict(ignored)},
        by_value=True,
        explicit_splits=is_explicit(options.splits),
        split_in_fingerprint=layout.split_in_fingerprint and not any(folders),
    )


def _describe(labels: Sequence[str | None]) -> str:
    """`3 classes, 2 without label`."""
    classes = set(labels) - {None}
    if not classes:
        return "no labels"
    missing = labels.count(None)
    return plural(len(classes), "class", "classes") + (f", {missing:,} without label" if missing else "")


def _shared_keys(images: Sequence[TarImage], layout: Layout) -> set[tuple[int, str | None]]:
    """(shard, key) of the samples with several images that are read."""
    keys = Counter((i.shard, i.key) for i, kind in zip(images, layout.kinds, strict=True) if kind is not None)
    return {key for key, n in keys.items() if n > 1 and key[1] is not None}


def _shard_folders(shards: list[str]) -> list[PathParts]:
    """The folder that precedes the paths in each shard: its split, where the names of the shards, or else of their folders,
    denote several splits; otherwise none."""
    stems = [re.sub(r"\.tar$", "", os.path.basename(s)) for s in shards]
    tops = [s.split("/")[0] if "/" in s else "" for s in shards]
    for words in (stems, tops):
        kinds = matching_splits(words)
        if len(set(kinds.values())) > 1:
            return [(kinds.get(word, word),) for word in words]
    return [()] * len(shards)
