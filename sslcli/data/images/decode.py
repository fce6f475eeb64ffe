"""Decode an image file to a Pillow image in the channels of the data set, or raise `BadImage` with the reason.

Pillow decodes all files, never torchvision.io, which crashes the process on some corrupt files. LOAD_TRUNCATED_IMAGES is off:
a truncated file is unreadable, not gray at the bottom. The size is checked before any pixel is decoded.
"""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageFile, ImageOps

from sslcli.data.folders.placeholders import detect_placeholder
from sslcli.data.images.bit_depth import BadValues, to_bytes
from sslcli.data.images.deep_color import DeepColor, deep_color, gray_values
from sslcli.errors import BadSample, MachineError

MAX_PIXELS = 64_000_000  # the default of dataset.max_pixels; 8000 x 8000: about 200 MB as RGB
MAX_BYTES = 1 << 30  # of one file
MIN_SIDE = 4
MAX_ASPECT = 100
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GRAY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}  # convert() would clip or blacken these
NOMINAL = (None, "auto", [0, 65535])  # ranges for which the high bytes of 16 bits in color suffice
REDUCED = {"JPEG", "MPO"}  # may be decoded at a fraction of their size
ANIMATED = {"GIF", "WEBP", "TIFF", "PNG", "AVIF", "MPO"}
NO_TIFF = " (a TIFF of 16- or 64-bit floats, of floats in color, or of other bands than gray or RGB: dataset=arrays reads .npy)"
# No image formats, readers that start other programs (EPS: Ghostscript), or stubs that decode nothing.
REFUSED = {"EPS", "PDF", "MPEG", "WMF", "BUFR", "GRIB", "HDF5", "FITS"}

# Pillow's warnings about metadata would be printed during training; its warning about a decompression bomb is an error.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class BadImage(BadSample):
    """An unreadable image."""


@dataclass(frozen=True)
class Header:
    """The header of an image file, read without decoding it."""

    width: int  # after applying the EXIF orientation
    height: int
    mode: str  # a Pillow mode, or RGB;16 and the like, which Pillow lacks
    format: str
    animated: bool
    alpha: bool

    @property
    def deep(self) -> bool:
        """Whether the image has more than 8 bits per value."""
        return self.mode in DEEP or self.mode.endswith(";16")


@cache
def formats() -> tuple[str, ...]:
    """The supported formats, by their Pillow names."""
    Image.init()
    return tuple(f for f in Image.OPEN if f not in REFUSED)


@cache
def extensions() -> frozenset[str]:
    """Lower-case extensions of the supported formats, with the dot."""
    Image.init()
    allowed = set(formats())
    return frozenset(e.lower() for e, f in Image.registered_extensions().items() if f in allowed)


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower().rstrip() in extensions()


def read_content(path: str) -> bytes:
    """The bytes of an image file. Raises BadImage where it cannot be read."""
    try:
        _check_file(path)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _reason(error, path) from error


def _check_file(path: str) -> None:
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise BadImage("not a regular file")
    if about.st_size == 0:
        raise BadImage("the file is empty")
    if about.st_size > MAX_BYTES:
        raise BadImage(f"the file has {about.st_size:,} bytes, more than {MAX_BYTES:,}")


def _open(file: str | bytes, max_pixels: int) -> ImageFile.ImageFile:
    if isinstance(file, str):
        _check_file(file)
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # the user's limit replaces that of Pillow
    image = Image.open(file if isinstance(file, str) else io.BytesIO(file), formats=formats())
    try:
        _check_size(*image.size, max_pixels)
    except BadImage:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels exceed {max_pixels:,} (dataset.max_pixels)")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"{width} x {height} pixels: a side is shorter than {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")


def _reason(error: BaseException, file: str | bytes) -> BadImage:
    if isinstance(error, BadImage):
        return error
    if isinstance(error, BadValues):
        return BadImage(error.message)
    if isinstance(error, Image.UnidentifiedImageError):
        what = detect_placeholder(file)
        return BadImage(what or "not an image that Pillow can read" + (NO_TIFF if _is_tiff(file) else ""))
    if isinstance(error, OSError) and error.strerror:
        return BadImage(error.strerror)  # for example: no such file, permission denied
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return BadImage("too many pixels")
    text = str(error).replace(file, "") if isinstance(file, str) else str(error)
    return BadImage(" ".join(text.split()) or type(error).__name__)


def _is_tiff(file: str | bytes) -> bool:
    try:
        with open(file, "rb") if isinstance(file, str) else io.BytesIO(file) as content:
            return content.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:
        return False


def _describe(file: str | bytes) -> str:
    return file if isinstance(file, str) else f"an image of {len(file):,} bytes"


def read_header(file: str | bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Size, mode and format, without decoding. Raises BadImage, and only where `load` does."""
    try:
        with _open(file, max_pixels) as image:
            width, height = image.size
            # getexif of Pillow decodes a whole PNG whose EXIF chunk is at its end.
            known = image.format in {"JPEG", "MPO", "TIFF", "WEBP"} or "exif" in image.info
            if known and image.getexif().get(0x0112) in (5, 6, 7, 8):
                width, height = height, width
            color = deep_color(image)
            mode = image.mode if color is None else color.mode
            return Header(width, height, mode, image.format or "?", _animated(image), image.has_transparency_data)
    except MemoryError as error:
        raise MachineError(f"out of memory opening {_describe(file)}") from error
    except Exception as error:  # a malformed file can make Pillow raise nearly any exception
        raise _reason(error, file) from error


def _animated(image: Image.Image) -> bool:
    """Whether there is more than one frame. A corrupt second frame does not count: only the first is decoded."""
    try:
        return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    except MemoryError:
        raise
    except Exception:  # as in `read_header`
        return False


def load(
    file: str | bytes,
    channels: int = 3,
    need: int | None = None,
    value_range: object = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode a file (its path, or its bytes) to mode L, RGB or RGBA (1, 3 or 4 channels): first frame, EXIF orientation
    applied, alpha composited on black unless there are 4 channels.

    `need`: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (much faster), to a short side of at least `need`.
    `value_range`: see `bit_depth.py`. `max_pixels`: larger images are not decoded. Raises BadImage with the reason.
    """
    with _decoding(file), _open(file, max_pixels) as image:
        if need is not None and image.format in REDUCED:
            short = min(image.size)
            if short > need:
                width, height = (math.ceil(s * need / short) for s in image.size)
                image.draft(None, (width, height))
        color = _upright(image)
        if color is not None and value_range not in NOMINAL:
            values, alpha = _sixteen_bits(image, color, file, max_pixels)
            scaled = to_bytes(values, value_range)
            return _in_mode(Image.fromarray(scaled if alpha is None else np.dstack([scaled, alpha])), MODES[channels])
        return _in_mode(_in_bytes(image, image, value_range), MODES[channels])


def convert(image: Image.Image, channels: int = 3, value_range: object = None) -> Image.Image:
    """A Pillow image in memory in the mode in which `load` returns its file. Raises BadImage with the reason."""
    with _decoding(b""):
        upright = ImageOps.exif_transpose(image)
        return _in_mode(_in_bytes(upright, image, value_range), MODES[channels])


def deep_values(file: str | bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The values of an image of more than 8 bits per value, without alpha. Raises BadImage."""
    with _decoding(file), _open(file, max_pixels) as image:
        color = _upright(image)
        if image.mode in DEEP:
            return gray_values(image, image)
        if color is None:
            raise BadImage("8 bits per value")
        return _sixteen_bits(image, color, file, max_pixels)[0]


@contextmanager
def _decoding(file: str | bytes) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise MachineError(
            f"out of memory decoding {_describe(file)}", "device.workers=1, or smaller images"
        ) from error
    except Exception as error:
        raise _reason(error, file) from error


def _in_bytes(image: Image.Image, tagged: Image.Image, value_range: object) -> Image.Image:
    """An image of more than 8 bits per value scaled to bytes; others as they are. `tagged`: has the tags of a TIFF."""
    if image.mode not in DEEP:
        return image
    values = np.asarray(image) if value_range is None else gray_values(image, tagged)
    return Image.fromarray(to_bytes(values, value_range))


def _upright(image: ImageFile.ImageFile) -> DeepColor | None:
    """Decode the image in place and apply its EXIF orientation. Of 16 bits in color, only the high bytes are decoded, and the
    description of the color planes is returned."""
    color = deep_color(image)
    if color is not None:
        image.tile = color.high
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return color


def _sixteen_bits(
    high: Image.Image, color: DeepColor, file: str | bytes, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """uint16 values and 8-bit alpha of an image decoded to its high bytes; the low bytes are decoded here."""
    if color.low is None:
        raise BadImage("16 bits in color, in separate compressed planes: save it with interleaved channels")
    with _open(file, max_pixels) as image:
        image.tile = color.low
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        low = np.asarray(image).astype(np.uint16)
    if color.mode == "LA;16":
        return np.repeat(low[..., :1] << 8 | low[..., 1:2], 3, axis=2), low[..., 2].astype(np.uint8)
    values = np.asarray(high).astype(np.uint16) << 8 | low
    return values[..., :3], np.asarray(high)[..., 3] if values.shape[2] == 4 else None


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
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
