"""Image files that are bad in every way we know of, and mutations of good ones: for the tests and for benchmarks/bad_folder.py."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from .conftest import make_image


def encoded(image: Image.Image, kind: str, **kw: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **kw)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def _noise(seed: int, side: int = 32) -> Image.Image:
    """Compresses badly, so that every format has many bytes to lose."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def _cut(data: bytes, share: float) -> bytes:
    return data[: max(1, int(len(data) * share))]


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("picture.jpg", b"\xff\xd8\xff" * 10)
    return out.getvalue()


def _png() -> bytes:
    return encoded(_noise(1), "PNG")


def _text_bomb() -> bytes:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)))
    return _png()[:33] + text + _png()[33:]


def _bmp_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(_noise(2), "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


# Name -> the bytes of a file that must be called bad, whatever its name says; and never anything else than bad.
BAD: dict[str, Callable[[], bytes]] = {
    "zero bytes": lambda: b"",
    "one byte": lambda: b"\xff",
    "null bytes": lambda: b"\0" * 4096,
    "random bytes": lambda: np.random.default_rng(0).bytes(4096),
    "html": lambda: b"<!doctype html><title>404 Not Found</title>",
    "text": lambda: b"see the other folder\n" * 20,
    "json": lambda: json.dumps({"error": "rate limit"}).encode(),
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>',
    "pdf": lambda: b"%PDF-1.7\n" + b"0" * 500,
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n",
    "zip": _zipped,
    "gzip": lambda: gzip.compress(b"a" * 500),
    "pickle": lambda: pickle.dumps({"x": list(range(100))}),
    "jpeg cut at a half": lambda: _cut(encoded(_noise(3), "JPEG"), 0.5),
    "jpeg without its end": lambda: encoded(_noise(4), "JPEG")[:-200],
    "jpeg header only": lambda: encoded(_noise(5), "JPEG")[:300],
    "jpeg signature only": lambda: b"\xff\xd8\xff\xe0",
    "jpeg with a broken table": lambda: _flip(encoded(_noise(6), "JPEG"), 24),
    "png with a wrong sum": lambda: _flip(_png(), _png().index(b"IDAT") + 200),
    "png cut at a half": lambda: _cut(_png(), 0.5),
    "png signature only": lambda: _png()[:8],
    "png without pixels": lambda: _png()[:33] + chunk(b"IEND", b""),
    "png with a wrong header sum": lambda: _flip(_png(), 30),
    "png text bomb": _text_bomb,
    "gif cut at a half": lambda: _cut(encoded(_noise(7), "GIF"), 0.5),
    "gif header only": lambda: encoded(_noise(8), "GIF")[:20],
    "tiff cut at a half": lambda: _cut(encoded(_noise(9), "TIFF", compression="tiff_lzw"), 0.5),
    "tiff signature only": lambda: b"II*\0\x08\0\0\0",
    "webp cut at a half": lambda: _cut(encoded(_noise(10), "WEBP", lossless=True), 0.5),
    "webp header only": lambda: encoded(_noise(11), "WEBP")[:16],
    "bmp cut at a half": lambda: _cut(encoded(_noise(12), "BMP"), 0.5),
    "bmp of absurd size": lambda: _bmp_of_size(70_000, 70_000),
    "one pixel": lambda: encoded(make_image(0, 1, 1), "PNG"),
    "sliver": lambda: encoded(make_image(0, 5, 6000), "PNG"),
    "81 million pixels": lambda: png_of_size(9000, 9000),
    "400 million pixels": lambda: png_of_size(20_000, 20_000),
    "nothing but nan": lambda: encoded(Image.fromarray(np.full((32, 32), np.nan, np.float32)), "TIFF"),
}


def make_folder(root: Path, n: int, share: float, classes: int = 10, side: int = 32) -> dict[str, str]:
    """`n` files below class folders, all of one size, of which `share` are bad. Returns name -> kind of the bad ones."""
    rng = np.random.default_rng(0)
    good = [encoded(_noise(100 + i, side), "JPEG" if i % 3 else "PNG") for i in range(200)]
    kinds = [(kind, make()) for kind, make in BAD.items()]
    for c in range(classes):
        (root / f"class{c}").mkdir(parents=True)
    chosen = set(rng.permutation(n)[: round(n * share)].tolist())
    truth: dict[str, str] = {}
    for i in range(n):
        name = f"class{i % classes}/{i:05d}.{'jpg' if i % 2 else 'png'}"
        if i in chosen:
            kind, data = kinds[len(truth) % len(kinds)]
            truth[name] = kind
        else:
            # bytes after the end of an image are no fault, and make each file another one
            data = good[i % len(good)] + i.to_bytes(4, "big")
        (root / name).write_bytes(data)
    return truth


SEEDS: dict[str, Callable[[], bytes]] = {
    "jpg": lambda: encoded(make_image(1, 48, 40), "JPEG", quality=85),
    "progressive.jpg": lambda: encoded(make_image(2, 48, 40), "JPEG", progressive=True),
    "cmyk.jpg": lambda: encoded(make_image(3, 48, 40, "CMYK"), "JPEG"),
    "png": lambda: encoded(make_image(4, 48, 40), "PNG"),
    "palette.png": lambda: encoded(make_image(5, 48, 40, "P"), "PNG", transparency=0),
    "deep.png": lambda: encoded(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)), "PNG"),
    "gif": lambda: encoded(make_image(6, 48, 40), "GIF", save_all=True, append_images=[make_image(7, 48, 40)]),
    "tif": lambda: encoded(make_image(8, 48, 40), "TIFF", compression="tiff_lzw"),
    "raw.tif": lambda: encoded(make_image(9, 48, 40), "TIFF"),
    "jpeg.tif": lambda: encoded(make_image(10, 48, 40), "TIFF", compression="jpeg"),
    "webp": lambda: encoded(make_image(11, 48, 40), "WEBP"),
    "animated.webp": lambda: encoded(
        make_image(12, 48, 40), "WEBP", save_all=True, append_images=[make_image(13, 48, 40)]
    ),
    "bmp": lambda: encoded(make_image(14, 48, 40), "BMP"),
}


def mutated(folder: Path, n: int, seed: int = 0) -> list[Path]:
    """`n` files made from good ones: bytes changed, numbers blown up, parts cut out, doubled, or put from another file."""
    rng = np.random.default_rng(seed)
    whole = {ext: make() for ext, make in SEEDS.items()}
    names = list(whole)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(n):
        ext = names[i % len(names)]
        path = folder / f"{i:05d}.{ext}"
        path.write_bytes(_mutate(whole[ext], whole[names[int(rng.integers(len(names)))]], rng))
        paths.append(path)
    return paths


def _mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        a, b = sorted(int(v) for v in rng.integers(0, len(out) + 1, 2))
        near = int(rng.integers(0, min(len(out), 200)))  # headers are where the harm is
        match int(rng.integers(7)):
            case 0:
                for _ in range(int(rng.integers(1, 12))):
                    out[int(rng.integers(len(out)))] = int(rng.integers(256))
            case 1:
                out[near : near + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xd9"])
            case 2:
                out[near] ^= 1 << int(rng.integers(8))
            case 3:
                del out[a:b]
            case 4:
                out[b:b] = out[a:b]
            case 5:
                out[a:b] = other[a:b]
            case 6:
                del out[int(rng.integers(1, len(out) + 1)) :]
        if not out:
            return data[:1]
    return bytes(out)


DECODE_ALL = """
import json, sys, time
from sslcli.data.images import decode
for path in sys.stdin.read().splitlines():
    for what in (decode.read_header, decode.load):
        began = time.perf_counter()
        try:
            what(path)
            result = "good"
        except decode.BadImage:
            result = "bad"
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        print(json.dumps([path, what.__name__, result, time.perf_counter() - began]), flush=True)
"""


def decode_in_child(paths: list[Path], timeout: float) -> list[tuple[str, str, str, float]]:
    """(path, read_header or load, good or bad or an exception, seconds) of each, from a child process: it may crash, we may not.

    Raises CalledProcessError when the child died, TimeoutExpired when it hung."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", DECODE_ALL],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
