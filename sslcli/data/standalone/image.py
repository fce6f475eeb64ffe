"""Convert images to the inputs of the encoder in this folder. Requires NumPy and Pillow.

Images of more than 8 bits per value are scaled by the range of the training data where they are gray; of color images with
16 bits per value, Pillow keeps the high bytes. The filter of Pillow and that of the training differ by one of 255 levels in a few
percent of the values of a resized image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of Pillow with more than 8 bits


class Preprocessor:
    """shape: (C, H, W) of an input. mean, std: (C, 1, 1), of values in 0..1. range: the values of images of more than 8 bits that
    become 0 and 255, or None."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self.mean, self.std = (np.reshape(about["values"][key], (-1, 1, 1)) for key in ("mean", "std"))
        self.range = about.get("range")

    def encode(self, images: Iterable[Any]) -> np.ndarray:
        """(n, C, H, W) float32. images: paths, images of Pillow, or uint8 arrays (H, W) or (H, W, C) of any sizes."""
        return np.stack([self.normalize(self.crop_and_resize(self.decode(image))) for image in images])

    def decode(self, image: Any) -> np.ndarray:
        """(H, W, C) uint8: upright, with transparent parts on black unless there are 4 channels."""
        channels, _, width = self.shape
        if isinstance(image, np.ndarray):
            array = image[..., None] if image.ndim == 2 else image
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
                raise ValueError(f"expected uint8 (H, W, {channels}), got {image.dtype} {image.shape}")
            return array
        if isinstance(image, (str, Path)):
            with Image.open(image) as opened:
                return self.decode(opened)
        if image.format in ("JPEG", "MPO") and (short := min(image.size)) > (need := 2 * width):
            w, h = (math.ceil(side * need / short) for side in image.size)
            image.draft(None, (w, h))  # decode a large photograph at a fraction of its size
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP:
            image = Image.fromarray(self.to_bytes(np.asarray(image)))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if channels != 4:
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
        if image.mode in ("P", "PA"):
            image = image.convert("RGB")
        array = np.asarray(image.convert(MODES[channels]))
        return array[..., None] if array.ndim == 2 else array

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Values of more than 8 bits as uint8."""
        if isinstance(self.range, list):
            low, high = self.range
        elif self.range in (None, "auto") and values.dtype.kind != "f" and values.min() >= 0 and values.max() < 65536:
            low, high = 0, 65535
        else:
            raise ValueError(f"values {values.min()} to {values.max()}: scale the image to uint8")
        scaled = (values.astype(np.float64) - low).clip(0, high - low) * (255 / (high - low))
        return np.rint(scaled).astype(np.uint8)

    def crop_and_resize(self, array: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8: the largest centered part with the proportions of an input, resized by an antialiased filter."""
        (_, height, width), (h, w, _) = self.shape, array.shape
        crop_w, crop_h = min(w, max(1, round(h * width / height))), min(h, max(1, round(w / (width / height))))
        left, top = (w - crop_w) // 2, (h - crop_h) // 2
        array = array[top : top + crop_h, left : left + crop_w]
        if (crop_h, crop_w) == (height, width):
            return array
        size, bilinear = (width, height), Image.Resampling.BILINEAR
        return np.stack([np.asarray(Image.fromarray(c).resize(size, bilinear)) for c in np.moveaxis(array, 2, 0)], 2)

    def normalize(self, array: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 of (H, W, C) uint8."""
        x: np.ndarray = ((array.transpose(2, 0, 1) / 255 - self.mean) / self.std).astype(np.float32)
        return x
