"""Video files, decoded by PyAV, the extra `[video]`, whose wheels bring the libraries of ffmpeg."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from sslcli.console import escape
from sslcli.errors import BadSample, MachineError

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"  # no playlists, which open other files
INSTALL = "pip install 'sslcli[video]', or convert videos to pictures: ffmpeg -i VIDEO FOLDER/%05d.png"
LONGEST_GAP = 600  # seconds; times of a damaged file may be anything
COMPLETE = 0.98  # of the frames that the header of a file counts; some headers count a few too many


def is_video_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower().rstrip() in ENDINGS


def has_av() -> bool:
    try:
        import av  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def require_av(path: str) -> None:
    """MachineError where PyAV is not installed. `path`: a video, or a folder with one."""
    if not has_av():
        raise MachineError(f"{escape(path)}: video files require PyAV, which is not installed", INSTALL)


@dataclass(frozen=True)
class VideoHeader:
    """width, height: in pixels. frames: their number, 0 where it is unknown. rate: frames per second on average, or None."""

    width: int
    height: int
    frames: int
    rate: Fraction | None


def read_header(path: str) -> VideoHeader:
    """BadSample for a file that is no video."""
    with _opened(path) as (container, stream):
        rate = stream.average_rate or None
        frames = stream.frames
        if not frames and rate and container.duration:
            frames = int(rate * container.duration / 1_000_000)
        return VideoHeader(stream.width, stream.height, frames, rate)


def read_frames(path: str, fps: float | None = None) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of a video, upright, one at a time; `fps`: those that are shown every 1 / fps seconds.

    BadSample for a file that is no video, one that ends early, and one that cannot be decoded."""
    with _opened(path) as (container, stream):
        frames = _decoded(container, stream)
        for frame in frames if fps is None else _sampled(frames, Fraction(fps).limit_denominator(100_000)):
            array = frame.to_ndarray(format="rgb24")
            yield np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90))) if frame.rotation else array


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of video that is not a cover picture."""
    import av
    from av.stream import Disposition

    try:
        container = av.open(os.path.abspath(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        raise BadSample(f"is no video that can be read: {_reason(error)}") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise BadSample("has no video stream")
        if streams[0].codec_context is None:
            raise BadSample("has a video stream of an unknown codec")
        if not streams[0].width or not streams[0].height:
            raise BadSample("has a video stream without a size")
        yield container, streams[0]


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    import av

    packets = 0
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            yield from packet.decode()
    except (av.FFmpegError, ValueError) as error:
        raise BadSample(f"cannot be decoded: {_reason(error)}") from None
    if packets < COMPLETE * stream.frames:
        raise BadSample(f"is truncated: {packets:,} of {stream.frames:,} frames")


def _sampled(frames: Iterable[Any], fps: Fraction) -> Iterator[Any]:
    """The frame that is shown at each multiple of 1 / fps seconds; times of a file are rounded to its time base."""
    shown, start, count = None, Fraction(0), 0
    for frame in frames:
        if frame.pts is None or frame.time_base is None:
            raise BadSample("has frames without times, of which none can be chosen by dataset.fps")
        time = frame.pts * frame.time_base
        if shown is None:
            start = time
        if shown is not None and time - shown.pts * shown.time_base > LONGEST_GAP:
            raise BadSample(f"has more than {LONGEST_GAP} seconds between two frames")
        while shown is not None and count / fps + frame.time_base / 2 <= time - start:
            yield shown
            count += 1
        shown = frame
    if shown is not None and count / fps < shown.pts * shown.time_base - start + shown.time_base / 2:
        yield shown


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
