"""Recordings in folders of numbered pictures."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.files.parallel import parallel_map
from sslcli.data.folders.scan import scan
from sslcli.data.images.crop import crop_and_resize, to_array
from sslcli.data.images.decode import is_image_name
from sslcli.data.images.encoded import Decoder
from sslcli.errors import BadSample, DataError, listing

NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one of a name
Folder = tuple[str, ...]


@dataclass(frozen=True)
class Recording:
    """A folder of pictures, with their names in order; or a video, the file `folder`, without names."""

    folder: Folder
    names: list[str]


def find_pictures(root: str, ignore_gaps: bool, notes: list[str]) -> list[Recording]:
    """DataError where there is none, or one has two frames of one number, or a missing number."""
    found = scan(root, is_image_name)
    notes += found.notes()
    by_folder: dict[Folder, list[str]] = defaultdict(list)
    for path, _ in found.files:
        by_folder[path[:-1]].append(path[-1])
    if not by_folder:
        raise DataError(
            f"{escape(root)} holds no videos and no pictures",
            "videos (.mp4), or a folder of pictures for each recording: PATH/recording/0001.png",
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


def size_hint(shapes: Iterable[tuple[int, ...]]) -> str:
    """The key that makes frames (C, H, W) of several shapes one size: their shortest side, or 64 where that is larger."""
    return f"dataset.image_size={min(64, *(min(shape[1:]) for shape in shapes))}"


def read_pictures(root: str, recordings: list[Recording], channels: int, size: int | None) -> list[Tensor]:
    """(T, C, H, W) of each. DataError for a picture that cannot be read, or frames of different sizes."""
    paths = [os.path.join(root, *r.folder, name) for r in recordings for name in r.names]
    decoder = Decoder(channels)

    def one(i: int) -> Tensor:
        return to_frame(to_array(decode(decoder, paths[i])), size)

    pictures = iter(parallel_map(one, len(paths), "decoding frames"))
    out = []
    for recording in recordings:
        frames = [next(pictures) for _ in recording.names]
        if len(shapes := {x.shape for x in frames}) > 1:
            shown = listing(f"{w} x {h}" for _, h, w in sorted(shapes))
            usual = Counter(x.shape for x in frames).most_common(1)[0][0]
            odd = next(name for name, x in zip(recording.names, frames, strict=True) if x.shape != usual)
            raise DataError(
                f"{escape(os.path.join(root, *recording.folder))} has frames of different sizes: {shown} pixels; the first "
                f"that differs from most is {escape(odd)}",
                size_hint(shapes),
            )
        out.append(torch.stack(frames))
    return out


def to_frame(array: np.ndarray, size: int | None) -> Tensor:
    """(H, W, C) uint8 -> (C, H, W), cropped to a square and resized to `size` pixels unless that is None."""
    if size is None:
        return torch.from_numpy(array.copy()).permute(2, 0, 1)
    height, width = array.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return crop_and_resize(array, (left, top, left + side, top + side), (size, size), "bilinear")
