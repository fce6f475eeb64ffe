"""Recordings of a folder: video files, or folders of numbered pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.files.array_fields import Targets
from sslcli.data.folders.split_names import exact_split
from sslcli.data.video.pictures import Recording, find_channels, find_pictures, read_pictures, size_hint
from sslcli.data.video.videos import find_videos, read_videos
from sslcli.errors import DataError, RequestError, listing


@dataclass(frozen=True)
class Sequences:
    """frames: of each split the recordings, (T, C, H, W) uint8 each. targets: of the recordings."""

    frames: dict[str, list[Tensor]]
    targets: Targets


def find_recordings(root: str, ignore_gaps: bool, notes: list[str]) -> list[Recording]:
    """The videos of a folder, or the video `root` itself; where there is none, the folders of pictures. DataError where there is
    none of these, MachineError for videos without PyAV."""
    return find_videos(root, notes) or find_pictures(root, ignore_gaps, notes)


def read_sequences(
    root: str,
    label: str | None,
    channels: int | str,
    size: int | None,
    fps: float | None,
    ignore_gaps: bool,
    notes: list[str],
) -> Sequences:
    """Each video, or folder that holds pictures, is a recording; see `frames`. RequestError for values, DataError for the files."""
    if channels not in ("auto", 1, 3):
        raise RequestError(f"dataset.channels={channels}: expected auto, 1 or 3", "dataset.channels=auto")
    if label not in ("auto", "none", None):
        raise RequestError(
            f"dataset.label={escape(str(label))}: expected auto or none for a folder", "dataset.label=auto"
        )
    parts = divide(find_recordings(root, ignore_gaps, notes))
    for part in ("unlabelled", "val"):
        if left := parts.pop(part, []):
            notes.append(f"{part}: {plural(len(left), 'recording')} not used")
    every = [recording for part in parts.values() for recording in part]
    if every[0].names:
        if fps is not None:
            raise RequestError("dataset.fps is of video files: pictures have no rate", "dataset.fps=null")
        depth = channels if isinstance(channels, int) else find_channels(root, every)
        videos = iter(read_pictures(root, every, depth, size))
    else:
        videos = iter(read_videos(root, every, channels, size, fps, notes))
    frames = {part: [next(videos) for _ in recordings] for part, recordings in parts.items()}
    if len(sizes := {x.shape[1:] for xs in frames.values() for x in xs}) > 1:
        shown = listing(f"{w} x {h}" for _, h, w in sorted(sizes))
        raise DataError(
            f"recordings in {escape(root)} have frames of different sizes: {shown} pixels", size_hint(sizes)
        )
    return Sequences(frames, label_by_folder(parts, label, notes))


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
