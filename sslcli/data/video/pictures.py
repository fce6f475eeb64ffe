"""Recordings in folders of numbered pictures."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.files.array_fields import Targets
from sslcli.data.files.parallel import parallel_map
from sslcli.data.folders.scan import scan
from sslcli.data.folders.split_names import exact_split
from sslcli.data.images.crop import crop_and_resize, to_array
from sslcli.data.images.decode import is_image_name
from sslcli.data.images.encoded import Decoder
from sslcli.errors import BadSample, DataError, RequestError, listing

NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one of a name
Folder = tuple[str, ...]


@dataclass(frozen=True)
class Sequences:
    """frames: of each split the recordings, (T, C, H, W) uint8 each. targets: of the recordings."""

    frames: dict[str, list[Tensor]]
    targets: Targets


@dataclass(frozen=True)
class Recording:
    """A folder of pictures, with their names in order."""

    folder: Folder
    names: list[str]


def read_sequences(
    root: str, label: str | None, channels: int | str, size: int | None, ignore_gaps: bool, notes: list[str]
) -> Sequences:
    """Each folder that holds pictures is a recording; see `frames`. RequestError for values, DataError for the folders."""
    if channels not in ("auto", 1, 3):
        raise RequestError(f"dataset.channels={channels}: expected auto, 1 or 3", "dataset.channels=auto")
    if label not in ("auto", "none", None):
        raise RequestError(
            f"dataset.label={escape(str(label))}: expected auto or none for a folder", "dataset.label=auto"
        )
    recordings = find_recordings(root, ignore_gaps, notes)
    parts = divide(recordings)
    for part in ("unlabelled", "val"):
        if left := parts.pop(part, []):
            notes.append(f"{part}: {plural(len(left), 'recording')} not used")
    every = [recording for part in parts.values() for recording in part]
    depth = channels if isinstance(channels, int) else find_channels(root, every)
    frames = {part: read_pictures(root, rs, depth, size) for part, rs in parts.items()}
    if len(sizes := {x.shape[1:] for xs in frames.values() for x in xs}) > 1:
        shown = listing(f"{w} x {h}" for _, h, w in sorted(sizes))
        raise DataError(
            f"recordings in {escape(root)} have frames of different sizes: {shown} pixels", "dataset.image_size=64"
        )
    return Sequences(frames, label_by_folder(parts, label, notes))


def find_recordings(root: str, ignore_gaps: bool, notes: list[str]) -> list[Recording]:
    """DataError where there is none, or one has two frames of one number, or a missing number."""
    found = scan(root, is_image_name)
    notes += found.notes()
    by_folder: dict[Folder, list[str]] = defaultdict(list)
    for path, _ in found.files:
        by_folder[path[:-1]].append(path[-1])
    if not by_folder:
        raise DataError(
            f"{escape(root)} holds no pictures", "a folder of pictures for each recording: PATH/recording/0001.png"
        )
    missing = 0
    out = []
    for folder, names in sorted(by_folder.items()):
        numbers = {name: NUMBER.search(name.rpartition(".")[0]) for name in names}
        if not all(numbers.values()):
            out.append(Recording(folder, sorted(names)))
            continue
        of = {name: int(number[1]) for name, number in numbers.items() if number}
        order = sorted(names, key=lambda name: (of[name], name))
        where = escape(os.path.join(root, *folder))
        for a, b in pairwise(order):
            if of[a] == of[b]:
                raise DataError(
                    f"{where}: {escape(a)} and {escape(b)} have the same number", "one of them is not a frame"
                )
            if of[b] != of[a] + 1 and not ignore_gaps:
                raise DataError(
                    f"{where}: no frame between {escape(a)} and {escape(b)}",
                    "dataset.gaps=ignore takes the frames that are there for consecutive ones",
                )
            missing += of[b] - of[a] - 1
        out.append(Recording(folder, order))
    if missing:
        notes.append(f"warning: {plural(missing, 'number')} missing between frames (dataset.gaps=ignore)")
    return out


def divide(recordings: list[Recording]) -> dict[str, list[Recording]]:
    """By split, where the top folders are named so, among them one of training; all are training recordings otherwise."""
    kinds = {r.folder[0]: exact_split(r.folder[0]) for r in recordings if r.folder}
    if "train" not in kinds.values() or None in kinds.values() or any(not r.folder for r in recordings):
        return {"train": recordings}
    parts: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        parts[str(kinds[recording.folder[0]])].append(Recording(recording.folder, recording.names))
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return dict(parts)


def label_by_folder(parts: dict[str, list[Recording]], label: str | None, notes: list[str]) -> Targets:
    """The folder around recordings is their class, where there are two or more, each with two recordings on average."""
    around = {part: [recording.folder[:-1] for recording in rs] for part, rs in parts.items()}
    names = {part: [folder[-1] if folder else "" for folder in fs] for part, fs in around.items()}
    first = 1 if len(parts) > 1 else 0  # folders that are splits
    nested = all(len(folder) > first for fs in around.values() for folder in fs)
    classes = sorted({name for ns in names.values() for name in ns})
    if label != "auto" or not nested or len(classes) < 2 or 2 * len(classes) > sum(map(len, names.values())):
        return Targets("classes")
    number = {name: i for i, name in enumerate(classes)}
    return Targets("classes", tuple(classes), {p: torch.tensor([number[n] for n in ns]) for p, ns in names.items()})


def find_channels(root: str, recordings: list[Recording]) -> int:
    """1 where the first picture of each of the first recordings is gray, else 3."""
    firsts = [os.path.join(root, *r.folder, r.names[0]) for r in recordings[:16]]
    colors = [to_array(decode(Decoder(3), path)) for path in firsts]
    return 1 if all((x[..., :1] == x).all() for x in colors) else 3


def decode(decoder: Decoder, path: str) -> object:
    """A decoded picture. DataError where it cannot be read: a frame cannot be left out."""
    try:
        return decoder(path)
    except BadSample as bad:
        raise DataError(f"{escape(path)} cannot be read: {bad}", "a recording needs all of its frames") from None


def read_pictures(root: str, recordings: list[Recording], channels: int, size: int | None) -> list[Tensor]:
    """(T, C, H, W) of each. DataError for a picture that cannot be read, or frames of different sizes."""
    paths = [os.path.join(root, *r.folder, name) for r in recordings for name in r.names]
    decoder = Decoder(channels)

    def one(i: int) -> Tensor:
        array = to_array(decode(decoder, paths[i]))
        if size is None:
            return torch.from_numpy(array.copy()).permute(2, 0, 1)
        height, width = array.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return crop_and_resize(array, (left, top, left + side, top + side), (size, size), "bilinear")

    pictures = iter(parallel_map(one, len(paths), "decoding frames"))
    out = []
    for recording in recordings:
        frames = [next(pictures) for _ in recording.names]
        if len(shapes := {x.shape for x in frames}) > 1:
            shown = listing(f"{w} x {h}" for _, h, w in sorted(shapes))
            raise DataError(
                f"{escape(os.path.join(root, *recording.folder))} has frames of different sizes: {shown} pixels",
                "dataset.image_size=64",
            )
        out.append(torch.stack(frames))
    return out
