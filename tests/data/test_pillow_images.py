"""Pillow images and arrays in memory: converted as the file that holds them is.

1. A Pillow image of any mode, opened, loaded or made in memory, gives the pixels of its path.
2. What Pillow loses when it loads a file is decoded from the file, or refused.
3. Arrays and tensors are uint8 in the documented layouts; all others are refused.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.errors import DataError
from sslcli.nn.values import Continuous
from tests.data.conftest import make_image
from tests.data.test_bit_depth import COLOR, GRAY, png, tiff


def preprocessor(channels: int, limits: list[float] | str | None = None) -> ImagePreprocessor:
    return ImagePreprocessor((channels, 8, 8), Continuous((0.5,) * channels, (0.5,) * channels), limits)


def write(folder: Path, mode: str) -> Path:
    """An image file in a mode: of more than 8 bits, with transparency, or with an EXIF orientation."""
    if mode in {"I;16", "I", "F"}:
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        path = folder / ("x.tif" if mode != "I;16" else "x.png")
        Image.fromarray(GRAY.astype(kind)).save(path)
    elif mode == "white is zero":
        path = folder / "x.tif"
        path.write_bytes(tiff((65535 - GRAY).astype("<u2").tobytes(), 16, t262=[0]))
    elif mode == "transparent P":
        path = folder / "x.png"
        make_image(1).convert("P").save(path, transparency=bytes(range(256)))
    elif mode in {"exif", "exif tif"}:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / ("x.jpg" if mode == "exif" else "x.tif")
        make_image(1).save(path, exif=exif)
    elif mode in {"gif", "large jpg"}:
        path = folder / f"x.{mode[-3:]}"
        make_image(1, 400, 300).save(path)
    else:
        image = make_image(1).convert(mode)
        if mode in {"RGBA", "LA"}:
            image.putalpha(Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24), dtype=np.uint8)))
        path = folder / ("x.tif" if mode in {"CMYK", "YCbCr"} else "x.png")
        image.save(path)
    return path


MODES = ["1", "L", "LA", "P", "transparent P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "white is zero"]
MODES += ["exif", "exif tif", "gif"]


@pytest.mark.parametrize("limits", [None, "auto", [100.0, 4000.0]], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_pillow_image_has_the_pixels_of_its_path(mode, channels, limits, tmp_path):
    path, p = write(tmp_path, mode), preprocessor(channels, limits)
    if mode == "F" and limits == "auto":
        with pytest.raises(DataError, match="data set of 8-bit images"):
            p.encode([Image.open(path)])
        return
    expected = p.encode([path])[0]
    loaded = Image.open(path)
    loaded.load()
    images = {
        "opened": Image.open(path),
        "opened from memory": Image.open(io.BytesIO(path.read_bytes())),
        "loaded": loaded,
        "copied": loaded.copy(),
    }
    if mode == "white is zero":  # a copy has no tags
        del images["copied"]
    for state, image in images.items():
        assert np.array_equal(p.encode([image])[0], expected), state
    assert np.array_equal(p.source([loaded]).read(0), expected)
    assert np.array_equal(np.asarray(images["opened"]), np.asarray(loaded))  # the image itself is not changed
    for image in images.values():
        image.close()


def test_opened_jpeg_is_decoded_as_its_path_is(tmp_path):
    path = write(tmp_path, "large jpg")
    expected = preprocessor(3).encode([path])[0]
    assert expected.shape == (38, 50, 3)
    with Image.open(path) as image:
        assert np.array_equal(preprocessor(3).encode([image])[0], expected)


def test_loaded_color_of_16_bits_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(COLOR))
    scaled, plain = preprocessor(3, [0.0, 4095.0]), preprocessor(3, "auto")
    with Image.open(path) as image:
        assert np.array_equal(scaled.encode([image])[0], np.rint(COLOR * (255 / 4095)))
    loaded = Image.open(path)
    loaded.load()
    assert np.array_equal(plain.encode([loaded])[0], plain.encode([path])[0])
    with pytest.raises(DataError, match="pass the path of the file"):
        scaled.encode([loaded])


def test_arrays_in_lists_have_any_layout():
    x = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    for array in (x, x.transpose(2, 0, 1), torch.from_numpy(x), torch.from_numpy(x).permute(2, 0, 1)):
        assert np.array_equal(preprocessor(3).encode([array])[0], x)
    gray = preprocessor(1).encode([x[..., 0], x[None, ..., 0], torch.from_numpy(x[..., :1])])
    assert all(np.array_equal(g, x[..., :1]) for g in gray)


@pytest.mark.parametrize(
    "sample",
    [
        np.zeros((6, 7, 3), np.uint16),
        np.zeros((6, 7, 3), np.float32),
        torch.zeros(3, 6, 7),
        np.zeros((6, 7), np.uint8),
        np.zeros((6, 7, 4), np.uint8),
        np.zeros((2, 6, 7, 3), np.uint8),
        np.uint8(3),
        None,
        7,
    ],
    ids=lambda s: f"{getattr(s, 'dtype', s)} {tuple(getattr(s, 'shape', ()))}",
)
def test_other_samples_in_lists_are_refused(sample):
    with pytest.raises(DataError, match="expected"):
        preprocessor(3).encode([sample])
