"""Convert clips of frames to the inputs of the encoder in this folder. Requires NumPy and Pillow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MODES = {1: "L", 3: "RGB"}


class Preprocessor:
    """shape: (C, T, H, W) of an input. mean, std: (C, 1, 1, 1), of values in 0..1. fps: the frames per second that are taken of a
    video, None for all."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self.mean, self.std = (np.reshape(about["values"][key], (-1, 1, 1, 1)) for key in ("mean", "std"))
        self.fps: float | None = about.get("fps")

    def encode(self, clips: Iterable[Sequence[Any]]) -> np.ndarray:
        """(n, C, T, H, W) float32. clips: each T frames, which are paths of pictures, images of Pillow, or uint8 arrays (H, W) or
        (H, W, C)."""
        return np.stack([self.encode_clip(clip) for clip in clips])

    def encode_clip(self, clip: Sequence[Any]) -> np.ndarray:
        """(C, T, H, W) float32."""
        if len(clip) != self.shape[1]:
            raise ValueError(f"expected clips of {self.shape[1]} frames, got {len(clip)}: cut longer ones")
        frames = np.stack([self.decode(frame) for frame in clip], axis=1)
        x: np.ndarray = ((frames / 255 - self.mean) / self.std).astype(np.float32)
        return x

    def decode(self, frame: Any) -> np.ndarray:
        """(C, H, W) uint8. A frame of another size is cropped to the largest centered square and resized."""
        channels, _, height, width = self.shape
        if isinstance(frame, (str, Path)):
            with Image.open(frame) as opened:
                return self.decode(opened)
        if not isinstance(frame, np.ndarray):
            image = ImageOps.exif_transpose(frame)
            if image.has_transparency_data:  # transparent parts are black
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
            frame = np.asarray(image.convert(MODES[channels]))
        frame = frame[..., None] if frame.ndim == 2 else frame
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != channels:
            raise ValueError(f"expected uint8 (H, W, {channels}), got {frame.dtype} {frame.shape}")
        if frame.shape[:2] == (height, width):
            return np.moveaxis(frame, 2, 0)
        if height != width:
            raise ValueError(f"expected frames of {height} x {width} pixels, got {frame.shape[0]} x {frame.shape[1]}")
        side = min(frame.shape[:2])
        top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
        square = np.moveaxis(frame[top : top + side, left : left + side], 2, 0)
        bilinear = Image.Resampling.BILINEAR
        return np.stack([np.asarray(Image.fromarray(c).resize((width, height), bilinear)) for c in square])
