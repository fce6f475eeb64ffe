"""Recordings in video files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.files.parallel import parallel_map
from sslcli.data.folders.scan import scan
from sslcli.data.images.decode import is_image_name
from sslcli.data.video.pictures import Recording, to_frame
from sslcli.data.video.video_files import VideoHeader, is_video_name, read_frames, read_header, require_av
from sslcli.errors import BadSample, DataError, MachineError
from sslcli.runtime.resources import PHYSICAL_MEMORY

T = TypeVar("T")
GRAY = 4  # of 255: differences of channels in videos of gray frames, by lossy compression


def find_videos(path: str, notes: list[str]) -> list[Recording]:
    """The videos of a folder, or the file `path` itself; [] where there is none. MachineError without PyAV, DataError for empty
    files."""
    if not os.path.isdir(path):
        require_av(path)
        return [Recording((), [])]
    found = scan(path, is_video_name)
    if not found.files and not found.empty:
        return []
    if found.empty:
        raise DataError(f"{plural(len(found.empty), 'video')} of zero bytes: {escape(found.empty[0])}", "remove them")
    require_av(path)
    pictures = sum(count for ending, count in found.ignored.items() if is_image_name(f"x{ending}"))
    notes += found.notes()
    if pictures:
        notes.append(f"warning: {plural(pictures, 'picture')} not read, since there are videos")
    return [Recording(parts, []) for parts, _ in found.files]


def read_videos(
    root: str, recordings: list[Recording], channels: int | str, size: int | None, fps: float | None, notes: list[str]
) -> list[Tensor]:
    """(T, C, H, W) uint8 of each. DataError for a file that cannot be read, MachineError where they do not fit into memory."""
    paths = [os.path.join(root, *r.folder) for r in recordings]
    headers = [_read(read_header, path) for path in paths]
    rates = sorted({round(float(h.rate), 2) for h in headers if h.rate})
    if fps is None and len(rates) > 1:
        notes.append(f"warning: videos have {rates[0]:g} to {rates[-1]:g} frames per second (dataset.fps)")
    _require_memory(sum(_pixels(header, size, fps) for header in headers))

    def one(i: int) -> Tensor:
        return _read(lambda path: _video(path, size, fps, channels == 1), paths[i])

    videos: list[Tensor] = parallel_map(one, len(paths), "decoding videos", chunk=1)
    if channels == "auto" and all(_is_gray(x) for x in videos):
        return [to_gray(x) for x in videos]
    return videos


def _read(read: Callable[[str], T], path: str) -> T:
    try:
        return read(path)
    except BadSample as bad:
        raise DataError(f"{escape(path)} {bad}", "remove the file, or convert it again") from None


def _video(path: str, size: int | None, fps: float | None, gray: bool) -> Tensor:
    """(T, 3, H, W) uint8, (T, 1, H, W) if `gray`. BadSample for fewer than two frames, and where these have different sizes."""
    frames: list[Tensor] = []
    for array in read_frames(path, fps):
        frames.append(to_frame(_luma(array) if gray else array, size))
        if frames[0].shape != frames[-1].shape:
            raise BadSample("has frames of different sizes (dataset.image_size)")
        if not len(frames) % 1000:
            _require_memory(len(frames) * frames[0].shape[1] * frames[0].shape[2])
    if len(frames) < 2:
        taken = "" if fps is None else f" at {fps:g} frames per second (dataset.fps)"
        raise BadSample(f"holds {plural(len(frames), 'frame')}{taken}: expected at least 2")
    return torch.stack(frames)


def _luma(array: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 1), before it is resized, as in pictures."""
    return to_gray(torch.from_numpy(array).permute(2, 0, 1)[None])[0, 0].numpy()[..., None]


def _pixels(header: VideoHeader, size: int | None, fps: float | None) -> float:
    """About how many pixels the frames of a video have."""
    share = min(1.0, fps / float(header.rate)) if fps and header.rate else 1.0
    return share * header.frames * (header.width * header.height if size is None else size * size)


def _require_memory(pixels: float) -> None:
    if 3 * pixels > PHYSICAL_MEMORY:
        raise MachineError(
            f"the frames of the videos have {3 * pixels / 1e9:,.1f} GB, more than the memory of this machine",
            "dataset.image_size=64 resizes frames; dataset.fps=5 takes fewer",
        )


def to_gray(x: Tensor) -> Tensor:
    """(T, 3, H, W) uint8 -> (T, 1, H, W): the luma of ITU-R BT.601, as Pillow computes it."""
    weights = torch.tensor([19_595, 38_470, 7_471], dtype=torch.int32).view(3, 1, 1)
    frames = [(frame.int() * weights).sum(dim=0, keepdim=True, dtype=torch.int32) for frame in x]
    return torch.stack([((luma + 32_768) >> 16).byte() for luma in frames])


def _is_gray(x: Tensor) -> bool:
    return all(bool((frame.amax(dim=0) - frame.amin(dim=0) <= GRAY).all()) for frame in x)
