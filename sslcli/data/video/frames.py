"""Clips in array files, video files, or folders of numbered pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.array_fields import assign_fields, check_task, encode_targets, make_sources
from sslcli.data.files.array_file import read_entries
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_path
from sslcli.data.split import split
from sslcli.data.video.build import build_dataset
from sslcli.data.video.preprocessor import MOST_FPS
from sslcli.data.video.recordings import Sequences, read_sequences
from sslcli.data.video.video_files import is_video_name
from sslcli.errors import DataError, RequestError

LAYOUTS = {
    "nthw": (0, 1, 2, 3),
    "tnhw": (1, 0, 2, 3),
    "nthwc": (0, 4, 1, 2, 3),
    "ncthw": (0, 1, 2, 3, 4),
    "tnhwc": (1, 4, 0, 2, 3),
}
CHANNELS = (1, 3)


def frames(
    path: str | None = None,
    name: str = "frames",
    length: int | None = None,
    stride: int | None = None,
    image_size: int | None = None,
    fps: float | None = None,
    channels: int | str = "auto",
    layout: str = "auto",
    label: str | None = "auto",
    gaps: str = "error",
    holdout: float | str = "auto",
    split_seed: int = 0,
) -> Dataset:
    """Clips (C, T, H, W) uint8 of one length, in memory.

    path: an array file (.npy, .npz, .pt) of clips (N, T, H, W), (N, T, H, W, C) or (N, C, T, H, W), with entries named as for
    `arrays`; a video, or a folder of them, each a recording; or a folder in which each folder of pictures is a recording, whose
    frames are in the order of the numbers in their names. Folders named train and test are splits; the folder around recordings
    is their class.

    `length`: frames of a clip, None for those of the shortest recording; longer recordings are cut into clips that begin every
    `stride` frames (None: `length`). All clips of a recording are in one split. `image_size`: frames are cropped to a square and
    resized. `fps`: of a video the frames that are shown every 1 / fps seconds, None for all. `gaps`: `error`, or `ignore` missing
    numbers. RequestError for values, DataError for the contents of the files, MachineError for videos without PyAV."""
    text = require_path(path, "an array file (.npy, .npz, .pt), a video, or a folder of videos or of pictures")
    if text.lower().endswith(".gif"):
        raise RequestError(
            f"{escape(text)} is an animated picture, which is not read",
            "ffmpeg -i FILE.gif FILE.mp4 makes a video of it",
        )
    for key, value in (("length", length), ("stride", stride), ("image_size", image_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise RequestError(
                f"dataset.{key}={value}: expected null or an integer of at least 1", f"dataset.{key}=null"
            )
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MOST_FPS):
        raise RequestError(f"dataset.fps={fps}: expected null or a number up to {MOST_FPS:,}", "dataset.fps=null")
    if layout != "auto" and layout not in LAYOUTS:
        raise RequestError(
            f"dataset.layout={escape(layout)}: expected auto, {', '.join(LAYOUTS)}", "dataset.layout=auto"
        )
    if gaps not in ("error", "ignore"):
        raise RequestError(f"dataset.gaps={escape(gaps)}: expected error or ignore", "dataset.gaps=ignore")
    notes: list[str] = []
    if os.path.isdir(text) or is_video_name(text):
        found = read_sequences(text, label, channels, image_size, fps, gaps == "ignore", notes)
    elif fps is not None:
        raise RequestError("dataset.fps is of video files: an array has no rate", "dataset.fps=null")
    else:
        found = read_arrays(text, label, layout, notes)
    steps = length or min(len(x) for part in found.frames.values() for x in part)
    longest = max(len(x) for part in found.frames.values() for x in part)
    if length is None and steps < longest:
        notes.append(
            f"clips of {steps} frames, as the shortest recording has; the longest has {longest} (dataset.length)"
        )
    cut = {part: cut_clips(xs, steps, stride or steps, text) for part, xs in found.frames.items()}
    shortest = sum(len(c.lost) for c in cut.values())
    if shortest:
        notes.append(f"warning: {plural(shortest, 'recording')} shorter than {steps} frames left out (dataset.length)")
    targets = found.targets.select({part: c.recording for part, c in cut.items()})
    groups = {part: c.recording for part, c in cut.items()}

    def hold_out() -> tuple[Tensor, Tensor, str]:
        y = targets.labels.get("train")
        whole = groups["train"].tolist()
        return (*split(len(whole), targets.holdout(holdout), split_seed, y, whole), "whole recordings")

    x = {part: c.clips for part, c in cut.items()}
    recordings = sum(map(len, found.frames.values()))
    clips = sum(map(len, x.values()))
    if recordings != clips:
        notes.append(f"{plural(recordings, 'recording')} cut into {plural(clips, 'clip')} of {steps} frames")
    sources = make_sources(x, targets, hold_out, notes, groups)
    digest = sources.pop("split")
    sources.pop("unlabelled")
    return build_dataset(
        name,
        sources["train"],
        sources["test"],
        targets.classes,
        fingerprint(clips, [part.contiguous().numpy().tobytes() for part in [*x.values(), *targets.tensors()]]),
        notes,
        fps,
        path=os.path.abspath(text),
        split=digest,
    )


@dataclass(frozen=True)
class Clips:
    """clips: (n, C, T, H, W). recording: (n,) int64, which one each is of. lost: recordings that are too short."""

    clips: Tensor
    recording: Tensor
    lost: list[int]


def cut_clips(recordings: Sequence[Tensor], length: int, stride: int, path: str) -> Clips:
    """Clips of `length` frames of recordings (T, C, H, W), which begin every `stride` frames."""
    clips, of, lost = [], [], []
    for i, frames in enumerate(recordings):
        starts = range(0, len(frames) - length + 1, stride)
        clips += [frames[start : start + length].transpose(0, 1) for start in starts]
        of += [i] * len(starts)
        if not starts:
            lost.append(i)
    if not clips:
        longest = max(map(len, recordings), default=0)
        raise DataError(
            f"no recording of {escape(path)} has {length} frames: the longest has {longest}",
            f"dataset.length={longest}",
        )
    return Clips(torch.stack(clips), torch.tensor(of), lost)


def read_arrays(path: str, label: str | None, layout: str, notes: list[str]) -> Sequences:
    """The clips of an array file. DataError for other types and shapes."""
    check_task("classes")
    fields = assign_fields(read_entries(path), label, path, notes)
    parts: dict[str, list[Tensor]] = {}
    for part, (key, value) in fields.x.items():
        array = np.asarray(value)
        order = axes_of(array.shape, key, layout)
        if array.dtype != np.uint8:
            raise DataError(
                f"{escape(key)}: expected uint8 clips, got {array.dtype}",
                "scale values to 0..255 and convert them: (x * 255).round().astype('uint8')",
            )
        array = np.transpose(array, order)
        x = torch.from_numpy(np.ascontiguousarray(array[:, None] if array.ndim == 4 else array))  # (N, C, T, H, W)
        parts[part] = list(x.transpose(1, 2))
    if len({x[0].shape[1:] for x in parts.values()}) > 1:
        raise DataError(f"the splits of {escape(path)} differ in the shape of their frames")
    targets = encode_targets(fields.y, {k: len(v) for k, v in parts.items()}, "classes", path, notes)
    return Sequences(parts, targets)


def axes_of(shape: tuple[int, ...], key: str, layout: str) -> tuple[int, ...]:
    """The order of the axes that makes (N, T, H, W) or (N, C, T, H, W) of an array."""
    given = f"{escape(key)} has the shape {tuple(shape)}"
    if min(shape, default=0) < 1:
        raise DataError(f"{given}: it holds no clip")
    if layout != "auto":
        if len(LAYOUTS[layout]) != len(shape):
            raise DataError(f"{given}, not the {len(LAYOUTS[layout])} axes of dataset.layout={layout}")
        return LAYOUTS[layout]
    if len(shape) == 4:
        if shape[1] >= 10 * shape[0] and shape[1] > shape[3]:
            raise DataError(
                f"{given}: {shape[1]:,} frames in each of {shape[0]} clips, or the other way round?",
                "dataset.layout=tnhw where time is the first axis, as in the file of Moving MNIST; else dataset.layout=nthw",
            )
        return LAYOUTS["nthw"]
    if len(shape) == 5 and (shape[4] in CHANNELS) != (shape[1] in CHANNELS):
        return LAYOUTS["nthwc" if shape[4] in CHANNELS else "ncthw"]
    if len(shape) == 5:
        raise DataError(f"{given}: which axis has the channels?", "dataset.layout=nthwc, or dataset.layout=ncthw")
    raise DataError(f"{given}: expected clips (N, T, H, W), (N, T, H, W, C) or (N, C, T, H, W)")
