"""Video files for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rate: int = 25,
    times: list[int] | None = None,
) -> Path:
    """`frames` (T, H, W, 3) uint8 as a video; ffv1 in .mkv or .avi is without loss. `times`: of the frames, in 1 / rate seconds."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for t, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = t if times is None else times[t], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A second of silence in a container without a stream of video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving_square(
    frames: int = 12, size: tuple[int, int] = (24, 32), start: int = 0, step: int = 1, red: int = 255
) -> np.ndarray:
    """(T, H, W, 3) uint8: a square that moves to the right, of another brightness in each frame."""
    x = np.zeros((frames, *size, 3), np.uint8)
    for t in range(frames):
        left = (start + step * t) % (size[1] - 8)
        x[t, 4:12, left : left + 8] = (red, 100 + 5 * t, 60)
    return x
