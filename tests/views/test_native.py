"""Compiled views: bit identity with the tensor code, the cache of libraries, and machines without a compiler."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import MachineError
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.runtime import device as runtime
from sslcli.runtime import folders
from sslcli.views import Views
from sslcli.views.image import BatchTransform, ImageView
from sslcli.views.images import native
from sslcli.views.images.native_check import probe
from sslcli.views.images.resample import weights
from sslcli.views.op import OpRandoms, make_ops

pytestmark = pytest.mark.skipif(native.find_compiler() is None, reason="no C compiler")

JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8}
STRONG = {
    "random_resized_crop": {"scale": [0.08, 1.0], "interpolation": "bicubic"},
    "horizontal_flip": {},
    "color_jitter": JITTER,
    "grayscale": {},
    "gaussian_blur": {},
    "solarize": {},
}
RECIPES = {
    "strong": STRONG,
    "bilinear, smaller": {"random_resized_crop": {"size": 0.5}, "horizontal_flip": {"p": 1.0}},
    "shrunk": {"resize": {"size": 5, "crop": 0.9, "interpolation": "bicubic"}, "random_intensity": {}},
    "whole, mirrored": {"horizontal_flip": {}, "vertical_flip": {}},
    "contrast first": {"color_jitter": {"contrast": 0.5}},
    "contrast after blur": {"gaussian_blur": {"sigma": [0.5, 3.0], "p": 1.0}, "color_jitter": JITTER},
    "contrast twice, as first and later": {"random_intensity": {}, "color_jitter": JITTER, "vertical_flip": {"p": 0.3}},
    "blur last": {"color_jitter": {"hue": 0.5}, "gaussian_blur": {"sigma": 0.01, "p": 1.0}},
    "nothing": {},
}


def pictures(n: int, *shape: int) -> torch.Tensor:
    """Images of noise, uniform colors, grays, black and white."""
    x = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[1::5] = x[1::5] // 64 * 64
    x[2::5] = x[2::5, :1]
    x[3::5] = 255 * (x[3::5] > 128)
    x[4::5] = x[4::5, :, :1, :1]
    return x


def view_of(recipe: dict, shape: tuple[int, int, int]) -> ImageView:
    from sslcli.views.image import OPS

    ops, _ = make_ops(recipe, "global", 0, shape, OPS, {})
    return ImageView(ops, shape, [0.5, 0.4, 0.3, 0.2, 0.1][: shape[0]], [0.2, 0.25, 0.3, 0.35, 0.4][: shape[0]])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache folder, with in-process caches cleared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remembered = (native.library, native.unavailable_reason)
    for function in remembered:
        function.cache_clear()
    yield tmp_path / "sslcli"
    for function in remembered:
        function.cache_clear()


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (3, 33, 19), (1, 28, 28), (5, 20, 24), (3, 8, 7), (3, 96, 70), (3, 1, 9)]
)
@pytest.mark.parametrize("name", RECIPES)
def test_native_is_bit_identical_to_tensor_code(name, shape):
    view, raw = view_of(RECIPES[name], shape), pictures(40, *shape)
    draw = Draw(1, 2, torch.arange(40) * 7)
    made = view.compiled(view.transform(raw, draw), raw)
    assert made is not None
    assert torch.equal(made, view.tensors(view.transform(raw, draw), raw))
    assert made.std() > 0


def test_native_streamed_frames_of_large_image():
    view, frames = view_of(STRONG, (3, 224, 224)), pictures(6, 3, 224, 224)
    plan = BatchTransform(OpRandoms(view.ops, Draw(0, 0, torch.arange(6)), frames.device), view.ops)
    assert torch.equal(view.compiled(plan, frames), view.tensors(plan, frames))


def test_native_is_used_for_views(monkeypatch):
    raw = pictures(8, 3, 32, 32)
    data = Dataset("d", "image", (3, 32, 32), ArraySource(raw), None, values=Continuous((0.5,) * 3, (0.2,) * 3))
    views, draw = Views({"global": 1}, {"global": STRONG}, data), Draw(0, 0, torch.arange(8))
    expected = views(raw, draw)[0]
    monkeypatch.setattr(ImageView, "tensors", lambda *_: pytest.fail("tensor code"))
    assert torch.equal(views(raw, draw)[0], expected)
    native.enable(False)
    try:
        with pytest.raises(pytest.fail.Exception):
            views(raw, draw)
    finally:
        native.enable("auto")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_native_ignores_threads_and_memory_layout(threads, monkeypatch):
    monkeypatch.setattr(native, "MIN_VALUES", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    view, raw = view_of(STRONG, (3, 32, 24)), pictures(23, 3, 32, 24)
    draw = Draw(0, 0, torch.arange(23))
    expected = view.tensors(view.transform(raw, draw), raw)
    for laid in (raw, raw.contiguous(memory_format=torch.channels_last), raw.flip(0).flip(0), raw[:, :, ::1]):
        assert torch.equal(view.compiled(view.transform(laid, draw), laid), expected)
    assert torch.equal(view.compiled(view.transform(raw[:0], draw.rows(slice(0))), raw[:0]), expected[:0])


def test_native_falls_back_for_uncompiled_op():
    view, raw = view_of({"random_affine": {"degrees": 20}}, (3, 16, 16)), pictures(5, 3, 16, 16)
    draw = Draw(0, 0, torch.arange(5))
    assert view.compiled(view.transform(raw, draw), raw) is None
    assert view.resident(raw, draw).shape == (5, 3, 16, 16)


def test_native_filter_weights_sum_to_one():
    length = torch.arange(1, 225, dtype=torch.float64)
    made = weights(torch.zeros(224, dtype=torch.float64), length, 224, 96, "bicubic")
    assert (made.sum(-1) == 4096).all()
    assert (made == made.round()).all()


def test_library_compiled_once_into_private_cache(cache, monkeypatch):
    native.library()
    (made,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    native.library.cache_clear()
    monkeypatch.setattr(native, "build", lambda *_: pytest.fail("compiled again"))
    native.library()
    assert list(cache.iterdir()) == [made]


def test_library_recompiled_when_damaged(cache):
    native.library()
    (made,) = cache.iterdir()
    made.unlink()  # not overwritten: it is in memory
    made.write_bytes(b"\x7fELF broken")
    native.library.cache_clear()
    native.library()
    assert made.stat().st_size > 1000


def test_cache_writable_by_others_is_not_used(cache, monkeypatch):
    cache.mkdir()
    cache.chmod(0o777)
    assert folders.cache_folder() is None
    native.library()
    assert list(cache.iterdir()) == []
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert folders.cache_folder() is None


def test_library_key_depends_on_compiler_cpu_and_source(tmp_path, monkeypatch):
    compiler = native.find_compiler()
    first = native.key(compiler)
    assert first == native.key(compiler)
    other = tmp_path / "cc"
    other.write_text("")
    monkeypatch.setattr(native, "processor", lambda: "another")
    second = native.key(compiler)
    assert len({first, second, native.key(str(other))}) == 3


def compiler(folder: Path, script: str) -> Path:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo stdint.h: not found >&2; exit 1", "cannot compile native.c: stdint.h: not found"),
        ('while [ "$1" != -o ]; do shift; done; echo x > "$2"', "cannot be loaded"),
        ('exec {real} "$@" -Drintf=ceilf', "differs from the tensor code"),
    ],
)
def test_broken_compiler_falls_back_with_reason(cache, tmp_path, monkeypatch, script, reason):
    real = native.find_compiler()
    monkeypatch.setenv("CC", str(compiler(tmp_path, script.format(real=real))))
    assert reason in native.unavailable_reason()
    assert not native.usable()
    assert [p for p in cache.iterdir() if p.suffix == ".so"] == []
    view, raw = probe()
    assert view.resident(raw, Draw(0, 0, torch.arange(len(raw)))).isfinite().all()
    device = {
        "type": "cpu",
        "threads": None,
        "precision": "auto",
        "channels_last": "auto",
        "workers": 0,
        "compile": False,
    }
    assert not native.configure("auto", torch.device("cpu"), native_views=True)
    assert "native views" not in runtime.start(device).describe()
    with pytest.raises(MachineError, match=r"device.native=true, but .*cc") as told:
        native.configure(True, torch.device("cpu"), native_views=True)
    assert "device.native=auto" in str(told.value.hint)


def test_missing_compiler_reason(cache, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(cache))
    assert native.unavailable_reason() == "no C compiler was found"


def test_native_code_passes_sanitizers(tmp_path):
    """The C code under address and undefined-behavior sanitizers, in a separate process."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    built = tmp_path / "views.so"
    command = [native.find_compiler(), *native.FLAGS, *flags, "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([*command, "-o", built, native.SOURCE, "-lm"], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    asan = subprocess.run(
        [native.find_compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    script = (
        "import ctypes, sys, torch; torch.set_num_threads(1)\n"
        "from tests.views import test_native as t\n"
        "code = ctypes.CDLL(sys.argv[1])\n"
        "for shape in ((3, 33, 19), (1, 28, 28), (5, 20, 24), (3, 8, 7), (3, 70, 40), (3, 1, 9)):\n"
        "    for recipe in t.RECIPES.values():\n"
        "        view, raw = t.view_of(recipe, shape), t.pictures(6, *shape)\n"
        "        draw = t.Draw(1, 2, torch.arange(6))\n"
        "        plan = view.transform(raw, draw)\n"
        "        assert torch.equal(view.compiled(plan, raw, code), view.tensors(plan, raw))\n"
        "print('sound')\n"
    )
    import sys

    env = os.environ | {"LD_PRELOAD": asan.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", script, built], capture_output=True, text=True, env=env, check=False)
    assert done.stdout == "sound\n", done.stderr[-2000:]
