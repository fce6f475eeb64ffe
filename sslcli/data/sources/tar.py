"""Images in tar files (shards), as the webdataset convention has them: `000001.jpg` beside `000001.cls` or `000001.json`.

The headers of a shard are read once, and where each picture lies is noted in an index ($SSLCLI_DATA/tar-index) that is good
as long as the shard keeps its size and time. From then on a picture is one read at its place, so everything is as with a
folder: the seeded order, resume, held-out splits, unreadable samples. A compressed shard has no such places.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.layout import LABEL_RULES, detect_layout
from sslcli.data.folders.split_folders import PathParts, is_explicit
from sslcli.data.folders.split_names import matching_splits
from sslcli.data.images import decode
from sslcli.data.images.options import MAX_SIZE, ImageOptions
from sslcli.data.notify import shown
from sslcli.data.sources.image_dataset import build_dataset
from sslcli.data.sources.tar_files.index import ShardIndex, read_indices
from sslcli.data.sources.tar_files.shards import TarShards, TarSource, find_shards
from sslcli.errors import DataError, RequestError


def tar(
    path: str | None = None,
    name: str = "tar",
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
    group: str = "none",  # what runs mean that were made before there was this key
) -> Dataset:
    """Images in uncompressed tar files, as a Dataset. Settings as in `folder.image_folder`, but for

    `path`: a tar file, a folder of them, or a pattern with {0000..0099}, {a,b} or *. Shards named train*, val*, test* (or in
    folders of these names) are splits, as are such folders in the shards.
    `label`: auto is the text of a sample's .cls, else the entry label, class or cls of its .json, else its class folder in
    the shard (top or parent, as for folders); none; or the entry of .json, or the extension, that is meant.

    `group`: sample keeps pictures that share a label (`7.left.jpg`, `7.right.jpg`, `7.cls`) on one side of any split; none.

    Raises RequestError for paths and values, DataError for shards that are broken or hold no picture.
    """
    asked = ImageOptions(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size,
    )  # fmt: skip
    paths = find_shards(path)
    notes: list[str] = []
    shards = TarShards([os.path.abspath(p) for p in paths])
    if group not in ("sample", "none"):
        raise RequestError(f"dataset.group is {shown(str(group))}, but must be sample or none", "dataset.group=sample")
    found = _read_contents(shards, read_indices(shards, label), asked, notes, group == "sample")

    def source(files: FileList, labels: Any, decoder: Any, limit: float) -> TarSource:
        return TarSource(shards, files, labels, decoder, limit)

    return build_dataset(found, asked, notes, source, shards.read)


def _read_contents(
    shards: TarShards, indices: list[ShardIndex], asked: ImageOptions, notes: list[str], grouped: bool
) -> FolderContents:
    label = asked.label
    base = os.path.commonpath([os.path.dirname(p) for p in shards.paths])
    names = [os.path.relpath(p, base) for p in shards.paths]
    ignored = sum((i.ignored for i in indices), Counter[str]())
    passed = ", ".join(f"{n:,} {shown(e)}" for e, n in ignored.most_common(6))
    samples = [(number, *sample) for number, index in enumerate(indices) for sample in index.samples]
    if not samples:
        hint = "pictures are known by their extension: .jpg, .png, ..." if "no extension" in ignored else None
        raise DataError(
            f"no picture in {plural(len(names), 'tar file')}" + (f"; seen: {passed}" if passed else ""), hint
        )
    cells = LabelParser()
    own = normalize_numbers([cells.label(cls) for *_, cls, _ in samples])
    if label not in (None, *LABEL_RULES) and not any(own):
        raise RequestError(
            f"dataset.label={shown(str(label))}: no sample has a .{shown(str(label))} or such an entry in its .json",
            "dataset.label=auto",
        )
    above = _shard_folders(names)
    paths = [(*above[number], *(p for p in name.split("/") if p not in ("", "."))) for number, name, *_ in samples]
    folders = label in (None, *LABEL_RULES) and not any(own)
    told: list[str] = []
    reading = detect_layout(paths, (), base, label if folders else "none", asked.splits, told)
    keys = [(s[0], s[-1]) for s, kind in zip(samples, reading.kinds, strict=True) if kind is not None]
    shared = {key for key, n in Counter(keys).items() if n > 1 and key[1] is not None}
    parts: dict[str, FileList] = {}
    for sample, cls, kind, folder in zip(samples, own, reading.kinds, reading.classes, strict=True):
        number, name, offset, size, _, key = sample
        if kind is not None:
            files = parts.setdefault(kind, FileList())
            files.add(f"{number}:{offset}:{size}", f"{names[number]}/{name}", size, cls or folder)
            if grouped and shared:
                own_key = key if (number, key) in shared else name
                files.groups = files.groups or []
                files.groups.append(f"{names[number]}/{own_key}")
    labels = [c for kind, files in parts.items() for c in files.classes if kind != "unlabelled"]
    classes = {c for c in labels if c is not None}
    said = f"{plural(len(classes), 'class', 'classes')}" if classes else "no labels"
    bare = sum(c is None for c in labels)
    said += f", {bare:,} without label" if classes and bare else ""
    notes.append(f"{plural(len(names), 'tar file')}: {plural(len(samples), 'image')}, {said}")
    notes += told if folders and classes else [note for note in told if not note.endswith("no labels")]
    notes += cells.notes()
    stems = Counter(os.path.splitext(name)[0] for files in parts.values() for name in files.names)
    if several := len(shared) or sum(n > 1 for n in stems.values()):
        held = "; those of a sample stand in one split" if shared and grouped else ""
        notes.append(f"{plural(several, 'sample')} with several pictures: each is an image of its own{held}")
    if passed:
        notes.append(f"passed over: {passed}")
    details = {"layout": "tar", "shards": len(names), "ignored": dict(ignored)}
    return FolderContents(
        base,
        parts,
        details,
        by_value=True,
        explicit_splits=is_explicit(asked.splits),
        split_in_fingerprint=reading.split_in_fingerprint and not any(above),
    )


def _shard_folders(shards: list[str]) -> list[PathParts]:
    """The folders that the members of each shard are thought to lie in: its split, where the names of several shards say theirs,
    or the folders that they lie in; else none."""
    stems = [re.sub(r"\.tar$", "", os.path.basename(s)) for s in shards]
    tops = [s.split("/")[0] if "/" in s else "" for s in shards]
    for words in (stems, tops):
        kinds = matching_splits(words)
        if len(set(kinds.values())) > 1:
            return [(kinds.get(word, word),) for word in words]
    return [()] * len(shards)
