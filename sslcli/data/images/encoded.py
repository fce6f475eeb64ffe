"""Sources of encoded images: in files (`image_dataset.py`) or in a pack (`pack_files/reader.py`)."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageFile

from sslcli.data.dataset import Source
from sslcli.data.files.parallel import parallel_map
from sslcli.data.images import decode
from sslcli.data.images.crop import center_box, crop_and_resize, to_array
from sslcli.data.images.deep_color import deep_color
from sslcli.data.storage import Dense, Storage


@dataclass(frozen=True)
class Decoder:
    """Decodes a file, or its bytes, to the channels of the data set; see `decode.load` for the settings."""

    channels: int = 3
    need: int | None = None
    value_range: Any = None
    max_pixels: int = decode.MAX_PIXELS

    def __call__(self, file: str | bytes) -> Image.Image:
        return decode.load(file, self.channels, self.need, self.value_range, self.max_pixels)

    def convert(self, image: Image.Image) -> Image.Image:
        """A Pillow image as its file is decoded. Raises BadImage.

        Pillow loads the high bytes of 16 bits in color only: where the range of values requires the low bytes, a loaded image is
        refused."""
        if (content := _encoded(image)) is not None:
            return self(content)
        if self.value_range not in decode.NOMINAL and _was_deep_color(image):
            raise decode.BadImage("Pillow loads only the high bytes of 16 bits in color: pass the path of the file")
        return decode.convert(image, self.channels, self.value_range)


def _encoded(image: Image.Image) -> bytes | None:
    """The content of the file of an image that was opened and not loaded yet, where Pillow would load other pixels than those of
    `decode.load`: a JPEG, or 16 bits in color. None for other images."""
    file = getattr(image, "fp", None)
    if not (isinstance(image, ImageFile.ImageFile) and image.tile and file and image.tell() == 0):
        return None
    if image.format not in decode.REDUCED and deep_color(image) is None:
        return None
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return bytes(content)


def _was_deep_color(image: Image.Image) -> bool:
    """Whether a loaded image is the high bytes of a file of 16 bits in color, as far as the file is known."""
    path = getattr(image, "filename", None)
    if not (isinstance(path, str | os.PathLike) and os.path.isfile(path)):
        return False
    return decode.read_header(str(path)).mode.endswith(";16") and image.mode not in decode.DEEP


class EncodedImages(Source):
    """Images decoded one by one by `read`, which raises BadImage, or all at once by `decode_all`."""

    decoder: Decoder
    sizes: Sequence[int]  # bytes of each, encoded
    _all: Storage | None = None

    @abstractmethod
    def decode(self, index: int) -> Any:
        """One image: a Pillow image, or (H, W) or (H, W, C) uint8. Raises BadImage."""

    @abstractmethod
    def digest(self, index: int) -> bytes:
        """A hash of the encoded image; a unique value for an image that cannot be read."""

    def checked(self, index: int) -> Any:
        return self.decode(index)

    def damage(self) -> list[str]:
        """Problems of the storage as a whole."""
        return []

    @property
    def resident(self) -> Storage | None:
        return self._all

    def set_resident(self, x: Storage) -> None:
        self._all = x

    def read(self, index: int) -> Any:
        return self.decode(index) if self._all is None else self._all[index]

    def decode_all(self, width: int, height: int, resize: bool = False) -> None:
        """Decode all images into memory, (n, C, H, W) uint8. Unreadable ones are 0 there, and listed in `bad`, as are those of
        another size. `resize`: the largest centered region of this aspect ratio is resized instead (bicubic, antialiased)."""
        x = torch.zeros(len(self), self.decoder.channels, height, width, dtype=torch.uint8)

        def one(i: int) -> str | None:
            try:
                image = to_array(self.checked(i))
            except decode.BadImage as error:
                return error.message
            if resize:
                x[i] = crop_and_resize(image, center_box(image.shape, width / height), (height, width), "bicubic")
                return None
            if image.shape[:2] != (height, width):
                return f"is {image.shape[1]}x{image.shape[0]}, not {width}x{height}"
            x[i] = torch.from_numpy(image.copy()).permute(2, 0, 1)
            return None

        reasons = parallel_map(one, len(self), "decoding images")
        self.bad = {i: reason for i, reason in enumerate(reasons) if reason is not None}
        self._all = Dense(x)
