"""Values of more than 8 bits: one range for all images and splits, fitted on training images, noted, and kept in the run."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcli.data.images import decode
from sslcli.data.images.bit_depth import Values, fit_range, to_bytes
from sslcli.data.images.decode import BadImage, load, read_header
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files.writer import write_pack
from sslcli.errors import DataError, RequestError
from tests.conftest import SMOKE

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 4096, (20, 24, 3)).astype(np.uint16)  # 12 bits in 16


def png(a: np.ndarray) -> bytes:
    """A PNG of 16 bits a value; Pillow writes none in color. The rows take turns with three of the filters."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = a.shape
    rows = np.frombuffer(a.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    up = np.concatenate([rows[:1] * 0, rows[:-1]])
    left = np.concatenate([rows[:, : 2 * channels] * 0, rows[:, : -2 * channels]], 1)
    lines = [bytes([y % 3]) + (rows[y] - (0 * left, left, up)[y % 3][y]).tobytes() for y in range(height)]
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def tiff(pixels: bytes, bits: int, samples: int = 1, order: str = "<", **tags: list[int]) -> bytes:
    """A TIFF of 24 x 20 with these bytes, in either byte order. `t262=[0]` sets a tag."""
    fields = {
        256: [24], 257: [20], 258: [bits] * samples, 259: [1], 262: [1 if samples == 1 else 2], 273: [8], 277: [samples],
        278: [20], 279: [len(pixels)],
    }  # fmt: skip
    fields |= {int(k[1:]): v for k, v in tags.items()}
    content, entries = pixels, b""
    for tag, values in sorted(fields.items()):
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            content, packed = content + packed, struct.pack(f"{order}I", 8 + len(content))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    return head + content + struct.pack(f"{order}H", len(fields)) + entries + b"\0" * 4


def color_tiff(order: str, compressed: bool = False, planes: bool = False, bands: int = 3) -> bytes:
    a = np.dstack([COLOR, *[COLOR[..., :1]] * (bands - 3)]).astype(f"{order}u2")
    parts = [a.tobytes()] if not planes else [a[..., c].tobytes() for c in range(bands)]
    parts = [zlib.compress(p) for p in parts] if compressed else parts
    at = [8 + sum(map(len, parts[:i])) for i in range(len(parts))]
    tags: dict = {"t259": [8]} if compressed else {}
    tags |= {"t284": [2]} if planes else {}
    tags |= {"t338": [0]} if bands == 4 else {}
    return tiff(b"".join(parts), 16, bands, order, t273=at, t279=[len(p) for p in parts], **tags)


FILES = {
    "png": png(COLOR),
    "tiff, little end": color_tiff("<"),
    "tiff, big end": color_tiff(">"),
    "tiff, deflated": color_tiff("<", compressed=True),
    "tiff, big end, deflated": color_tiff(">", compressed=True),
    "tiff, planes": color_tiff("<", planes=True),
    "tiff, big end, planes": color_tiff(">", planes=True),
    "tiff, infrared too": color_tiff("<", bands=4),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_color_of_16_bits_keeps_its_low_bytes(file):
    assert read_header(file).mode in ("RGB;16", "RGBX;16")
    assert np.array_equal(decode.deep_values(file), COLOR)
    expected = np.rint(COLOR * (255 / 4095)).astype(np.uint8)
    assert np.array_equal(np.asarray(load(file, 3, value_range=[0, 4095])), expected)
    assert np.asarray(load(file, 3)).max() == 15  # runs made before: the high bytes


def test_compressed_color_planes_cannot_be_scaled():
    file = color_tiff("<", compressed=True, planes=True)
    assert read_header(file).deep
    assert np.asarray(load(file, 3)).max() == 15
    with pytest.raises(BadImage, match="interleaved"):
        load(file, 3, value_range=[0, 4095])


GRAY = COLOR[..., 0]


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (tiff((65535 - GRAY).astype("<u2").tobytes(), 16, t262=[0]), GRAY),  # 0 is white
        (tiff((GRAY.astype("<u4") << 20).tobytes(), 32), GRAY.astype(np.int64) << 20),  # beyond 2^31
        (tiff((GRAY.astype("<i4") - 2000).tobytes(), 32, t339=[2]), GRAY.astype(int) - 2000),
        (tiff((GRAY.astype(">i2") - 2000).astype(">i2").tobytes(), 16, order=">", t339=[2]), GRAY.astype(int) - 2000),
        (tiff((GRAY / 4095).astype("<f4").tobytes(), 32, t339=[3]), (GRAY / 4095).astype("f4")),
    ],
)
def test_tiff_values_follow_their_tags(file, values):
    assert np.array_equal(decode.deep_values(file), values)
    low, high = float(values.min()), float(values.max())
    expected = np.rint((values - low) * (255 / (high - low)))
    assert np.abs(np.asarray(load(file, 1, value_range=[low, high])) - expected).max() <= 1


@pytest.mark.parametrize("bits", [16, 64])
def test_unsupported_float_tiff_is_named(bits):
    with pytest.raises(BadImage, match=r"64-bit floats.*dataset=arrays"):
        read_header(tiff(GRAY.astype(f"<f{bits // 8}").tobytes(), bits, t339=[3]))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_16_bits_is_excluded(channels):
    a = np.dstack([COLOR[..., : channels - 1], np.full(COLOR.shape[:2], 65535)])
    a[:, :5, -1] = 0
    assert decode.deep_values(png(a)).max() <= 4095
    out = np.asarray(load(png(a), 4, value_range=[0, 4095]))
    gray = a[..., :1] if channels == 2 else a[..., :3]
    assert np.array_equal(out[..., :3], np.rint(np.broadcast_to(gray, out[..., :3].shape) * (255 / 4095)))
    assert (out[:, :5, 3] == 0).all()
    assert (np.asarray(load(png(a), 3, value_range=[0, 4095]))[:, :5] == 0).all()


@pytest.mark.parametrize(
    ("values", "wish", "expected"),
    [
        (np.linspace(300, 3800, 9999).astype(int), "auto", (0, 4095)),
        (np.append(np.linspace(300, 3800, 9999), 65535).astype(int), "auto", (0, 4095)),  # one hot pixel
        (np.linspace(0, 65535, 9999).astype(int), "auto", (0, 65535)),
        (np.linspace(0, 255, 9999).astype(int), "auto", (0, 255)),
        (np.linspace(0, 0.9, 9999), "auto", (0, 1)),
        (np.linspace(0, 200, 9999), "auto", (0, 255)),
        (np.linspace(0, 100, 10001), "minmax", (0, 100)),
        (np.linspace(0, 100, 10001), "percentile", (1, 99)),
        (np.linspace(28000, 29000, 10001).astype(int), "auto", (28001, 28999)),  # a thermal camera: a corner of 16 bits
        (np.linspace(-1000, 1000, 10001), "auto", (-998, 998)),  # CT
        (np.linspace(0, 1e-3, 10001), "auto", (1e-6, 9.99e-4)),
        (np.full(100, 7), "auto", (7, 8)),
        (np.append(np.linspace(100, 400, 10001), [-9999.0] * 2000), "auto", (100.3, 399.7)),  # no data, in maps
        (np.append(np.linspace(0, 3900, 10001).astype(int), [65535] * 2000), "auto", (0, 4095)),
        (np.append(np.linspace(100, 4000, 10001).astype(int), [0] * 2000), "auto", (0, 4095)),  # a background
    ],
)
def test_range_found(values, wish, expected):
    low, high, _ = fit_range(wish, Values(values.min(), values.max(), values.astype(float), values.dtype.kind != "f"))
    assert (low, high) == pytest.approx(expected, abs=1e-9)


def micro(root: Path, kind: str = "png", n: int = 6) -> Path:
    """Two classes of one texture: about 1000 and about 3000, or -500 and 500 as floats."""
    for c, level in enumerate((1000, 3000)):
        (root / f"c{c}").mkdir(parents=True)
        for i in range(n):
            v = np.random.default_rng(i).normal(level, 50, (16, 16))
            v[0, :2] = 0, 4000
            image = Image.fromarray(v.astype(np.uint16) if kind == "png" else ((v - 2000) / 2).astype(np.float32))
            image.save(root / f"c{c}" / f"{i}.{kind}")
    return root


def levels_of(source) -> list[float]:
    """The mean of the classes' images."""
    x = source.resident.tensor[:, 0].float().mean((1, 2))
    return [float(x[source.labels == c].mean()) for c in (0, 1)]


@pytest.mark.parametrize(("kind", "wish"), [("png", "auto"), ("png", "minmax"), ("tif", "auto"), ("tif", "percentile")])
def test_one_range_keeps_classes_apart(kind, wish, tmp_path):
    d = image_folder(str(micro(tmp_path / "x", kind)), range=wish)
    for source in (d.train, d.test):
        low, high = levels_of(source)
        assert high - low > 100
    note = next(n for n in d.notes if "scaled to" in n)
    low, high = d.details["range"]
    assert f"dataset.range=[{low:g},{high:g}]" in note
    assert note.startswith("warning") == (kind == "tif" and wish == "auto")  # a guess


@pytest.mark.parametrize("wish", [None, "image_minmax", "image_percentile"])
def test_images_are_scaled_separately_on_request(wish, tmp_path):
    d = image_folder(str(micro(tmp_path / "x", "tif")), range=wish)
    low, high = levels_of(d.train)
    assert high - low < 5 or wish == "image_minmax" or wish is None
    assert any("warning" in n and "separately" in n for n in d.notes)


def test_bytes_are_as_before(tmp_path, make_folder):
    root = make_folder({"a": 3, "b": 3})
    plain, old = image_folder(str(root)), image_folder(str(root), range=None)
    assert plain.train.resident.tensor.equal(old.train.resident.tensor)
    assert plain.fingerprint == old.fingerprint
    assert plain.details["range"] is None
    assert any("no effect" in n for n in image_folder(str(root), range="minmax").notes)


def test_unsampled_float_image_is_unreadable():
    with pytest.raises(DataError, match=r"dataset\.range"):
        to_bytes(np.array([[0.5, 2000.0]]), "auto")
    assert to_bytes(np.array([[0, 65535]], np.uint16), "auto").tolist() == [[0, 255]]


def test_pack_and_folder_have_one_range(tmp_path):
    d = image_folder(str(micro(tmp_path / "x")), resident=False)
    write_pack(d, tmp_path / "p")
    packed = pack(str(tmp_path / "p"), resident=False)
    assert all(np.array_equal(np.asarray(d.train.read(i)), np.asarray(packed.train.read(i))) for i in range(4))


@pytest.mark.parametrize("wish", ["minmax", "percentile", [-1, 3], "auto"])
def test_arrays_have_the_range_of_train(wish, tmp_path):
    x = RNG.normal(0.5, 0.1, (30, 8, 8)).clip(0, 1)
    x = x * 4 - 1 if wish != "auto" else x
    test = x[:10].copy()
    test[0, 0, 0] = 60  # one bright pixel
    np.savez(tmp_path / "d.npz", x_test=test, x_train=x)
    d = arrays(str(tmp_path / "d.npz"), range=wish)
    assert d.test.resident.tensor[1:].equal(d.train.resident.tensor[1:10])
    assert int(d.test.resident.tensor[0, 0, 0, 0]) == 255
    assert d.details["range"] == ([-1, 3] if wish == [-1, 3] else pytest.approx(d.details["range"]))
    np.savez(tmp_path / "d.npz", x_test=test + 50, x_train=x)
    assert any("warning" in n and "clipped" in n for n in arrays(str(tmp_path / "d.npz"), range=wish).notes)


def test_arrays_minmax_notes_outliers(tmp_path):
    x = RNG.normal(0, 1, (30, 8, 8))
    x[3, 3, 3] = 1e4
    np.save(tmp_path / "x.npy", x)
    assert any("99.8 %" in n and "percentile" in n for n in arrays(str(tmp_path / "x.npy"), range="minmax").notes)
    assert arrays(str(tmp_path / "x.npy"), range="percentile").values.std[0] > 0.2
    with pytest.raises(RequestError, match="one range"):
        arrays(str(tmp_path / "x.npy"), range="image_minmax")


def test_run_keeps_its_range(cli, tmp_path):
    """What it was trained on measures other data, brighter than its own, too; and its own after a test image was added."""
    micro(tmp_path / "x")
    other = micro(tmp_path / "y")
    for file in other.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)) * 15).save(file)
    words = ["dataset=image_folder", "backbone=convnet", "train.batch_size=4", "train.eval_every=0"]
    done = cli("pretrain", *SMOKE, *words, "dataset.path=x")
    assert done.code == 0, done.err
    own = json.loads((Path(done.last) / "preprocessor" / "preprocessor.json").read_text())
    assert own["range"] == [0, 4095]
    assert "0..4095 scaled to 0..255" in done.err
    seen = cli("eval", "knn", f"run={done.last}", "dataset=image_folder", "dataset.path=y", "--json")
    assert seen.code == 0, seen.err
    assert json.loads(seen.out)["numbers"]["raw.top1"] < 1.0  # all white in the range of the run
    asked = cli(
        "eval", "knn", f"run={done.last}", "dataset=image_folder", "dataset.path=y", "dataset.range=[0,65535]", "--json"
    )
    assert json.loads(asked.out)["numbers"]["raw.top1"] == 1.0
    assert "the run was trained with [0.0, 4095.0]" in asked.err
    assert "the run was trained with" not in seen.err


def test_invalid_ranges_are_refused(tmp_path):
    for wish in ("wide", [1], [2, 1], 5, [0, float("nan")]):
        with pytest.raises(RequestError, match="range") as error:
            image_folder(str(tmp_path), range=wish)
        assert "image_percentile" in error.value.message


def test_truncated_deep_image_is_unreadable():
    with pytest.raises(BadImage):
        load(FILES["png"][:-200], 3, value_range=[0, 4095])


def test_mixed_integer_and_float_images_warn(tmp_path):
    micro(tmp_path / "x", "png")
    micro(tmp_path / "x" / "y", "tif")
    assert any("others floats" in n for n in image_folder(str(tmp_path / "x")).notes)


def test_test_split_of_another_scale_warns(tmp_path):
    x = RNG.random((20, 8, 8))
    np.savez(tmp_path / "d.npz", x_train=x * 255, x_test=x)
    assert any("warning" in n and "check its scale" in n for n in arrays(str(tmp_path / "d.npz")).notes)
