"""Views by Triton kernels: bit identity with the tensor code in triton's interpreter and on a GPU, what the compiler makes of the
kernels, and machines where they cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sslcli.errors import MachineError
from sslcli.views.images import compiled, triton_views
from sslcli.views.images.native import COLOR_CODES
from sslcli.views.images.native_check import kernels_match_tensor_code
from tests.views.triton_cases import CASES, both

ROOT = Path(__file__).parents[2]
CUDA = torch.device("cuda", 0)
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def run(mode: str, folder: Path) -> dict[str, Any]:
    """The output of triton_cases.py."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    if mode == "interpret":
        env["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "tests.views.triton_cases", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict[str, Any]:
    return run("interpret", tmp_path_factory.mktemp("triton"))


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_kernels_are_bit_identical_to_tensor_code(name, interpreted):
    equal, difference, deviation = interpreted[name]
    assert equal, difference
    assert deviation > 0


@needs_triton
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_views_are_rounded_once_to_other_types(name, interpreted):
    """To float16 as torch rounds. The interpreter truncates to bfloat16 where a GPU rounds to the nearest value."""
    equal, difference, _ = interpreted[name]
    assert equal, difference


@needs_triton
def test_compiled_kernels_round_as_the_tensor_code(tmp_path):
    """No fused multiply-add, approximate division or flush to zero in what is compiled for an H100."""
    unsafe = run("compile", tmp_path)
    assert {name.split()[0] for name in unsafe} == {"weights_kernel", "views_kernel", "blur_rows_kernel"}
    assert not any(unsafe.values()), unsafe


@needs_triton
def test_codes_of_steps_are_those_of_the_kernels():
    from sslcli.views.images import triton_functions

    assert [getattr(triton_functions, name.upper()).value for name in COLOR_CODES] == list(range(len(COLOR_CODES)))


def test_recipe_is_divided_at_operations_on_several_pixels():
    def tensor_code(x: torch.Tensor, part: slice) -> torch.Tensor:
        return x

    kernel, mask = torch.ones(2, 3), torch.tensor([True, False])
    steps = [("mirror", None, None), ("hue", torch.ones(2, 1), mask), ("blur", kernel, mask), ("grayscale", None, None)]
    launches = triton_views.plan([*steps, tensor_code, ("upside_down", None, mask)])
    assert [len(launch.steps) for launch in launches] == [1, 1, 0]
    assert [launch.blur is not None for launch in launches] == [False, True, False]
    assert [launch.then for launch in launches] == [None, tensor_code, None]
    assert (launches[0].mirror, launches[2].upside_down) == ([None], [mask])


# ------------------------------------------------------------------------------------------------ whether they are used


@pytest.fixture
def checked(monkeypatch) -> Callable[[Any], None]:
    """Set what the comparison with the tensor code returns, or raises."""
    monkeypatch.setattr(triton_views, "unavailable_reason", triton_views.unavailable_reason.__wrapped__)
    monkeypatch.setattr(triton_views._Switch, "enabled", True)

    def outcome(result: Any) -> None:
        def check(device: torch.device) -> bool:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(triton_views._Switch, "check", check)

    return outcome


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ModuleNotFoundError("No module named 'triton'"), "triton cannot be imported: No module named 'triton'"),
        (RuntimeError("no C compiler\nmore"), "cannot be compiled: RuntimeError: no C compiler"),
        (False, "differ from those of the tensor code"),
    ],
)
def test_tensor_code_is_used_where_kernels_cannot_be(result, reason, checked, capsys):
    checked(result)
    assert triton_views.unavailable_reason(CUDA).endswith(reason)
    assert not compiled.configure("auto", CUDA, native_views=True)
    assert reason in capsys.readouterr().err
    with pytest.raises(MachineError, match=r"device\.native=true, but ") as error:
        compiled.configure(True, CUDA, native_views=True)
    assert "device.native=auto" in str(error.value.hint)


def test_native_setting_switches_the_kernels(checked):
    checked(True)
    assert compiled.configure("auto", CUDA, native_views=True)
    assert compiled.configure(True, CUDA, native_views=True)
    assert not compiled.configure(False, CUDA, native_views=True)
    assert not triton_views.usable(CUDA)
    assert not compiled.configure(True, CUDA, native_views=False)


class WritesNothing:
    """A kernel whose launch has no effect."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **options: None


def test_wrong_kernels_do_not_match_tensor_code():
    sources = {name: SimpleNamespace(value=i) for i, name in enumerate(("WHOLE", "CROP", "FLOAT", "BLUR"))}
    kernels = {name: WritesNothing() for name in ("weights_kernel", "views_kernel", "blur_rows_kernel")}
    assert not kernels_match_tensor_code(torch.device("cpu"), SimpleNamespace(**sources, **kernels))


# ------------------------------------------------------------------------------------------------ on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@needs_triton
def test_gpu_uses_the_kernels():
    assert triton_views.unavailable_reason(CUDA) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_gpu_views_are_bit_identical_to_those_of_a_processor(name):
    # an affine map and noise differ between devices by rounding
    reference = "cuda" if {"random_affine", "noise"} & CASES[name][0].keys() else "cpu"
    views, expected = both(name, 500, "cuda", reference)
    assert torch.equal(views, expected.cuda())
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(both(name, 500, "cuda", dtype=dtype)[0], expected.cuda().to(dtype))
