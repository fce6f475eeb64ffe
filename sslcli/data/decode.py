"""One image file to one Pillow image in the data set's channels, or a `BadImage` that says why not.

Pillow alone decodes, never torchvision.io (it crashes the process on some broken files), and never with
LOAD_TRUNCATED_IMAGES: a file cut short is bad, not grey at the bottom. The size is checked before a pixel is decoded.
"""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from sslcli.errors import DataError, MachineError

MAX_PIXELS = 64_000_000  # the default of dataset.max_pixels; 8000 x 8000: about 200 MB as RGB
MAX_BYTES = 1 << 30  # of one file
MIN_SIDE = 4
MAX_ASPECT = 100
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GRAY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}  # convert() would clip or blacken these
ANIMATED = {"GIF", "WEBP", "TIFF", "PNG", "AVIF", "MPO"}
# Not pictures, readers that start other programs (EPS: Ghostscript), or stubs that decode nothing.
REFUSED = {"EPS", "PDF", "MPEG", "WMF", "BUFR", "GRIB", "HDF5", "FITS"}

# Pillow's remarks about odd metadata would be printed from the middle of training; its warning of a bomb is an error.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class BadImage(DataError):
    """An image that cannot be used; the message is the reason, without the name."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded."""

    width: int  # as seen: after the EXIF orientation
    height: int
    mode: str  # Pillow's
    format: str
    animated: bool
    alpha: bool


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names."""
    Image.init()
    return tuple(f for f in Image.OPEN if f not in REFUSED)


@cache
def extensions() -> frozenset[str]:
    """Lower-case extensions of the formats that are read, with their dots."""
    Image.init()
    allowed = set(formats())
    return frozenset(e.lower() for e, f in Image.registered_extensions().items() if f in allowed)


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in extensions()


def content(path: str) -> bytes:
    """The bytes of an image file. Raises BadImage where they cannot be read."""
    try:
        _check_file(path)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _reason(error, path) from error


def _check_file(path: str) -> None:
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise BadImage("no regular file")
    if about.st_size == 0:
        raise BadImage("the file is empty")
    if about.st_size > MAX_BYTES:
        raise BadImage(f"the file has {about.st_size:,} bytes, more than {MAX_BYTES:,}")


def _open(file: str | bytes, max_pixels: int) -> Image.Image:
    if isinstance(file, str):
        _check_file(file)
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # the user knows better than Pillow's own limit
    image = Image.open(file if isinstance(file, str) else io.BytesIO(file), formats=formats())
    try:
        _check_size(*image.size, max_pixels)
    except BadImage:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels are more than {max_pixels:,} (dataset.max_pixels)")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"{width} x {height} pixels: a side is shorter than {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} pixels: one side is over {MAX_ASPECT} times the other")


def _reason(error: BaseException, file: str | bytes) -> BadImage:
    if isinstance(error, BadImage):
        return error
    if isinstance(error, Image.UnidentifiedImageError):
        return BadImage("not an image that Pillow can read")
    if isinstance(error, OSError) and error.strerror:
        return BadImage(error.strerror)  # no such file, permission denied
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return BadImage("too many pixels")
    text = str(error).replace(file, "") if isinstance(file, str) else str(error)
    return BadImage(" ".join(text.split()) or type(error).__name__)


def _shown(file: str | bytes) -> str:
    return file if isinstance(file, str) else f"an image of {len(file):,} bytes"


def header(file: str | bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Size, mode and format without decoding. Raises BadImage, and only where `load` would."""
    try:
        with _open(file, max_pixels) as image:
            width, height = image.size
            # Pillow's getexif decodes the whole of a PNG whose EXIF stands at its end.
            known = image.format in {"JPEG", "MPO", "TIFF", "WEBP"} or "exif" in image.info
            if known and image.getexif().get(0x0112) in (5, 6, 7, 8):
                width, height = height, width
            return Header(width, height, image.mode, image.format or "?", _animated(image), image.has_transparency_data)
    except MemoryError as error:
        raise MachineError(f"no memory left to open {_shown(file)}") from error
    except Exception as error:  # a hostile file can make Pillow raise nearly anything; each is a bad image
        raise _reason(error, file) from error


def _animated(image: Image.Image) -> bool:
    """More than one frame. A second one that is broken does not count: only the first is ever decoded."""
    try:
        return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    except MemoryError:
        raise
    except Exception:  # Pillow raises nearly anything here, see `header`
        return False


def load(
    file: str | bytes, channels: int = 3, need: int | None = None, value_range: Any = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The image of a file (its path, or its bytes) in mode L, RGB or RGBA (1, 3 or 4 channels): first frame, upright,
    alpha laid on black unless kept.

    `need`: the short side may come back as small as this where JPEG can be decoded at 1/2, 1/4 or 1/8 (much faster).
    `value_range`: see `to_bytes`. More than `max_pixels`: refused unseen. Raises BadImage with the reason.
    """
    try:
        with _open(file, max_pixels) as image:
            if need is not None and image.format in {"JPEG", "MPO"}:
                short = min(image.size)
                if short > need:
                    image.draft(None, tuple(math.ceil(s * need / short) for s in image.size))  # type: ignore[arg-type]
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _in_mode(image, MODES[channels], value_range)
    except MemoryError as error:
        raise MachineError(f"no memory left to decode {_shown(file)}", "device.workers=1, or smaller images") from error
    except Exception as error:
        raise _reason(error, file) from error


def _in_mode(image: Image.Image, mode: str, value_range: Any) -> Image.Image:
    if image.mode in DEEP:
        image = Image.fromarray(to_bytes(np.asarray(image), value_range))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "RGBA":
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image).convert("RGB")
    if image.mode != mode:
        if image.mode in {"P", "PA"} and mode == "L":
            image = image.convert("RGB")
        image = image.convert(mode)
    return image


def to_bytes(values: np.ndarray, value_range: Any = None) -> np.ndarray:
    """Deep grey values to uint8.

    `value_range` [lo, hi]: these become 0 and 255. None: 16-bit values are divided by 257 (that is 65535 / 255), 32-bit
    integers too when they fit, floats in 0..1 or 0..255 are taken as that, and everything else by the image's own
    minimum and maximum. "minmax", "percentile": the extremes, or the 1st and 99th percentile, of each image. Values
    that are not finite become the lowest.
    """
    v = values.astype(np.float64)
    finite = np.isfinite(v)
    if not finite.any():
        raise BadImage("no finite pixel")
    low, high = float(v[finite].min()), float(v[finite].max())
    v = np.where(finite, v, low)
    if value_range == "percentile":
        low, high = (float(p) for p in np.percentile(v[finite], [1, 99]))
    elif value_range not in (None, "minmax"):
        low, high = float(value_range[0]), float(value_range[1])
    elif value_range == "minmax":
        pass
    elif values.dtype.kind == "f":
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        elif low >= 0 and high <= 255:
            low, high = 0.0, 255.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    if high <= low:
        return np.zeros(v.shape, np.uint8)
    return np.rint((v - low).clip(0, high - low) * (255.0 / (high - low))).astype(np.uint8)
