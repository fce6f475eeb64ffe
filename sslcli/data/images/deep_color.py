"""Images of more than 8 bits that Pillow truncates (color, to the high bytes) or misreads (some TIFF files)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile

# Pillow reads 16-bit color as the high byte of each value; these raw modes read the low byte of the same file.
LOW_BYTE = {f"{m};16{a}": f"{m};16{b}" for m in ("RGB", "RGBA", "RGBX") for a, b in ("LB", "BL")}
LOW_BYTE |= {f"{m};16N": f"{m};16{'B' if sys.byteorder == 'little' else 'L'}" for m in ("RGB", "RGBA")}
LOW_BYTE |= {"LA;16B": "RGBA"}  # both bytes of the gray value and both of its alpha
BITS, PHOTOMETRIC, PLANES, SAMPLES = 258, 262, 284, 339  # TIFF tags


@dataclass(frozen=True)
class DeepColor:
    """How to decode an image of 16 bits in color: Pillow tiles for the high bytes and, where possible, for the low bytes."""

    mode: str
    high: list[ImageFile._Tile]
    low: list[ImageFile._Tile] | None


def deep_color(image: Image.Image) -> DeepColor | None:
    """The `DeepColor` of an opened image; None for all other images. Call it before `image.load()`."""
    tiles = list(getattr(image, "tile", ()))
    if not tiles or "transparency" in image.info:
        return None
    raw = [t.args if isinstance(t.args, str) else t.args[0] for t in tiles if t.args]
    tags = _tags(image)
    if tags.get(PLANES) == 2 and _first(tags, BITS, 8) == 16 and image.mode == "RGB":
        if raw == ["R", "G", "B"]:  # Pillow reads these as planes of bytes
            ends = "BL" if getattr(tags, "prefix", b"II") == b"MM" else "LB"
            high, low = (_with(tiles, [f"{r};16{end}" for r in raw]) for end in ends)
            return DeepColor("RGB;16", high, low)
        return DeepColor("RGB;16", tiles, None)
    if len(set(raw)) == 1 and raw[0] in LOW_BYTE:
        return DeepColor(f"{raw[0].partition(';')[0]};16", tiles, _with(tiles, [LOW_BYTE[r] for r in raw]))
    return None


def _with(tiles: list[Any], raw: list[str]) -> list[ImageFile._Tile]:
    return [
        t._replace(args=r if isinstance(t.args, str) else (r, *t.args[1:])) for t, r in zip(tiles, raw, strict=True)
    ]


def gray_values(image: Image.Image, tagged: Image.Image) -> np.ndarray:
    """The values of a decoded image in a Pillow mode of more than 8 bits, interpreted by the tags of a TIFF, `tagged`."""
    v, tags = np.array(image), _tags(tagged)
    if image.mode == "I" and _first(tags, BITS, 0) == 32 and _first(tags, SAMPLES, 1) == 1:
        v = v.view(np.uint32)  # Pillow has no such mode
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts images of bytes only
        v = -v if v.dtype.kind == "f" else np.iinfo(v.dtype).max - v
    return v


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", None) or {}


def _first(tags: Any, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
