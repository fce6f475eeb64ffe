"""Decoding of valid and corrupt images of every kind."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from sslcli.data.images import decode
from sslcli.data.images.decode import BadImage, load, read_header

from .conftest import make_image


def save(path: Path, image: Image.Image, **kw) -> str:
    image.save(path, **kw)
    return str(path)


def test_never_truncated_images():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert not {"EPS", "PDF", "MPEG"} & set(decode.formats())
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif"} <= decode.extensions()
    assert not {".svg", ".txt", ".eps", ".pdf"} & decode.extensions()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg_bytes(tmp: Path, **kw) -> bytes:
    return Path(save(tmp / "whole.jpg", make_image(1, 64, 48), quality=90, **kw)).read_bytes()


def broken(kind: str, tmp: Path) -> Path:
    path = tmp / f"{kind}.jpg"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "html":
        path.write_text("<!doctype html><title>404</title>")
    elif kind == "truncated":
        path.write_bytes(jpeg_bytes(tmp)[:-400])
    elif kind == "header only":
        path.write_bytes(jpeg_bytes(tmp)[:200])
    elif kind == "png crc":
        data = bytearray(Path(save(tmp / "ok.png", make_image(2, 64, 64))).read_bytes())
        data[data.index(b"IDAT") + 30] ^= 0xFF
        path.write_bytes(data)
    elif kind == "tiny":
        make_image(0, 1, 1).save(path)
    elif kind == "sliver":
        make_image(0, 5, 6000).save(path)
    elif kind == "too large":
        path.write_bytes(png_of_size(9000, 9000))
    elif kind == "bomb":
        path.write_bytes(png_of_size(20000, 20000))
    elif kind == "text bomb":
        text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)))
        data = Path(save(tmp / "ok.png", make_image(2))).read_bytes()
        path.write_bytes(data[:33] + text + data[33:])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "vanished":
        pass
    return path


BROKEN = [
    ("empty", "empty"),
    ("html", "a web page"),
    ("truncated", "truncated"),
    ("header only", ""),
    ("png crc", ""),
    ("tiny", "1 x 1"),
    ("sliver", "more than 100 times"),
    ("too large", "exceed 64,000,000"),
    ("bomb", "pixels"),
    ("text bomb", ""),
    ("folder", "not a regular file"),
    ("fifo", "not a regular file"),
    ("vanished", "No such file"),
]


@pytest.mark.parametrize(("kind", "reason"), BROKEN, ids=[k for k, _ in BROKEN])
def test_unreadable_image_has_a_reason(kind, reason, tmp_path):
    path = broken(kind, tmp_path)
    with pytest.raises(BadImage) as error:
        load(str(path), 3)
    assert error.value.message
    assert reason in error.value.message
    assert str(tmp_path) not in error.value.message
    assert error.value.code == 7


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "really_png.jpg"
    make_image(3).save(path, format="PNG")
    assert read_header(str(path)).format == "PNG"
    assert np.array_equal(np.asarray(load(str(path))), np.asarray(make_image(3)))


def test_trailing_bytes_and_bad_icc_are_accepted(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes(tmp_path, icc_profile=b"garbage") + b"trailing")
    assert load(str(path)).size == (64, 48)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_every_channel_count(mode, channels, tmp_path):
    base = make_image(5)
    if mode in {"I;16", "I", "F"}:
        v = np.asarray(base.convert("L"))
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(v.astype(kind) * kind(257 if mode != "F" else 1))
    else:
        image = base.convert(mode)
    ext = {"CMYK": ".tif", "YCbCr": ".tif", "I": ".tif", "F": ".tif"}.get(mode, ".png")
    out = load(save(tmp_path / f"x{ext}", image), channels)
    assert out.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if mode not in {"1", "P"}:  # the pixels are intact
        seen = np.asarray(out.convert("L"), dtype=float)
        assert np.abs(seen - np.asarray(base.convert("L"), dtype=float)).mean() < 3


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    path = save(tmp_path / "deep.png", Image.fromarray(ramp))
    out = np.asarray(load(path, 1))
    assert np.abs(out.astype(int) - np.rint(ramp / 257).astype(int)).max() == 0
    twelve = save(tmp_path / "twelve.png", Image.fromarray(ramp // 16))
    assert np.asarray(load(twelve, 1)).max() == 16  # dark, unless the range is said
    assert np.asarray(load(twelve, 1, value_range=[0, 4095])).max() == 255
    assert np.asarray(load(twelve, 1, value_range="percentile")).max() == 255


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 200.0), (-5.0, 7.0), (1000.0, 1001.0)])
def test_floats_are_not_black(low, high, tmp_path):
    v = np.linspace(low, high, 400).reshape(20, 20).astype(np.float32)
    v[0, 0] = np.nan
    out = np.asarray(load(save(tmp_path / "f.tif", Image.fromarray(v)), 1))
    top = 200 if high == 200 else 255
    assert out.max() == top
    assert np.unique(out).size > 190
    assert out[0, 0] == out.min()


def test_only_nan_is_bad(tmp_path):
    path = save(tmp_path / "f.tif", Image.fromarray(np.full((4, 4), np.nan, np.float32)))
    with pytest.raises(BadImage, match="finite"):
        load(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_on_black(mode, tmp_path):
    image = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 8, 16))
    path = tmp_path / "t.png"
    if mode == "P":
        p = Image.new("P", (16, 16), 0)
        p.putpalette([255, 255, 255, 255, 255, 255] + [0] * 750)
        p.paste(1, (0, 0, 8, 16))
        p.save(path, transparency=0)
    else:
        image.convert(mode).save(path)
    out = np.asarray(load(str(path), 3))
    assert (out[:, :8] == 255).all()
    assert (out[:, 8:] == 0).all()
    assert read_header(str(path)).alpha
    kept = np.asarray(load(str(path), 4))
    assert (kept[:, :8, 3] == 255).all()
    assert (kept[:, 8:, 3] == 0).all()


@pytest.mark.parametrize("ext", ["gif", "webp", "tif", "png"])
def test_first_frame_of_several(ext, tmp_path):
    a, b = Image.new("RGB", (16, 12), (200, 0, 0)), Image.new("RGB", (16, 12), (0, 0, 200))
    path = str(tmp_path / f"a.{ext}")
    a.save(path, save_all=True, append_images=[b])
    assert read_header(path).animated
    out = np.asarray(load(path, 3)).reshape(-1, 3).mean(0)
    assert out[0] > 150
    assert out[2] < 60


def test_exif_orientation(tmp_path):
    image = make_image(7, 40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # a rotated camera: the image is displayed as 20 x 40
    path = save(tmp_path / "turned.jpg", image, exif=exif, quality=95)
    h = read_header(path)
    assert (h.width, h.height) == (20, 40)
    out = load(path)
    assert out.size == (20, 40)
    expected = np.asarray(image.rotate(-90, expand=True), dtype=float)
    assert np.abs(np.asarray(out, dtype=float) - expected).mean() < 6


def test_jpeg_draft_is_a_downscaled_image(tmp_path):
    image = make_image(8, 800, 600)
    path = save(tmp_path / "large.jpg", image, quality=95)
    out = load(path, 3, need=100)
    assert out.size == (200, 150)  # a quarter: the smallest step that leaves 100
    assert load(path, 3, need=601).size == (800, 600)
    full = np.asarray(image.resize((200, 150), Image.Resampling.BOX), dtype=float)
    assert np.abs(np.asarray(out, dtype=float) - full).mean() < 3


def test_mutated_files_decode_or_raise_bad_image(tmp_path):
    rng = np.random.default_rng(0)
    whole = {
        "jpg": jpeg_bytes(tmp_path),
        "png": Path(save(tmp_path / "w.png", make_image(1, 40, 40))).read_bytes(),
        "gif": Path(save(tmp_path / "w.gif", make_image(1, 40, 40))).read_bytes(),
        "tif": Path(save(tmp_path / "w.tif", make_image(1, 40, 40), compression="tiff_lzw")).read_bytes(),
        "webp": Path(save(tmp_path / "w.webp", make_image(1, 40, 40))).read_bytes(),
    }
    outcomes = {"good": 0, "bad": 0}
    for ext, data in whole.items():
        for _ in range(60):
            mutated = bytearray(data)
            for _ in range(int(rng.integers(1, 12))):
                mutated[int(rng.integers(len(mutated)))] = int(rng.integers(256))
            if rng.random() < 0.3:
                mutated = mutated[: int(rng.integers(1, len(mutated)))]
            path = tmp_path / f"m.{ext}"
            path.write_bytes(mutated)
            try:
                image = load(str(path), 3)
            except BadImage:
                outcomes["bad"] += 1
            else:
                assert image.mode == "RGB"
                outcomes["good"] += 1
    assert min(outcomes.values()) > 20
