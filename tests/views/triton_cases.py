"""Views by Triton kernels without a GPU, for test_triton_views.py: `python -m tests.views.triton_cases interpret|compile`.

`interpret`: views by triton's interpreter beside those of the tensor code. `compile`: the PTX of all kernels for an H100. Prints a
JSON object. A process of its own, because triton decides at its import whether it interprets."""

from __future__ import annotations

import json
import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import torch

from sslcli.rng import Draw
from sslcli.views.image import OPS, ImageView
from sslcli.views.images.resample import exact_products
from sslcli.views.op import make_ops

CROP = {"random_resized_crop": {"scale": [0.3, 1.0]}}
JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8}
ALL = {
    "random_resized_crop": {"interpolation": "bicubic"},
    "horizontal_flip": {},
    "color_jitter": JITTER,
    "grayscale": {},
    "gaussian_blur": {},
    "solarize": {},
    "vertical_flip": {},
    "random_intensity": {},
}
SMALL, ODD = (3, 12, 12), (3, 9, 7)
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # recipe, shape of a sample
    "nothing": ({}, SMALL),
    "crop": (CROP, SMALL),
    "1 channel": (CROP | {"color_jitter": {"brightness": 0.4, "contrast": 0.8}}, (1, 12, 10)),
    "5 channels": (CROP | {"color_jitter": {"contrast": 0.8}, "vertical_flip": {}}, (5, 9, 7)),
    "enlarged": ({"random_resized_crop": {"size": 17, "interpolation": "bicubic"}}, ODD),
    "shrunk": ({"resize": {"size": 5, "crop": 0.9}}, (3, 23, 16)),
    # filters with two largest weights, of which the first takes what rounding leaves
    "shrunk bicubic": ({"resize": {"size": 3, "fit": "stretch", "interpolation": "bicubic"}}, (3, 6, 10)),
    "mirrored crop": (CROP | {"horizontal_flip": {"p": 1.0}}, ODD),
    "mirrored and upside down": ({"horizontal_flip": {"p": 1.0}, "vertical_flip": {}}, ODD),
    "brightness": ({"color_jitter": {"brightness": 0.8}}, SMALL),
    "contrast": ({"color_jitter": {"contrast": 0.8}}, ODD),
    "saturation": ({"color_jitter": {"saturation": 0.8}}, SMALL),
    "hue": ({"color_jitter": {"hue": 0.5}}, SMALL),
    "grayscale": ({"grayscale": {"p": 1.0}}, SMALL),
    "solarize": ({"solarize": {"p": 1.0, "threshold": 128 / 255}}, SMALL),
    "intensity": ({"random_intensity": {}}, SMALL),
    "blur": ({"gaussian_blur": {"p": 1.0}}, (3, 40, 33)),
    "blur wider than the image": ({"gaussian_blur": {"sigma": [2.0, 3.0], "p": 1.0}}, (3, 1, 5)),
    "all": (ALL, SMALL),
    "all of 1 channel": (ALL, (1, 8, 8)),
    "several tiles": (CROP | {"color_jitter": JITTER, "solarize": {"threshold": 0.3}}, (3, 48, 44)),
    "tensor code between": ({"color_jitter": JITTER, "random_affine": {"degrees": 20}, "solarize": {}}, SMALL),
    "tensor code last": ({"color_jitter": JITTER, "noise": {"sigma": 80.0}}, SMALL),
    "contrast of values outside 0..1": ({"noise": {"sigma": 80.0}, "color_jitter": {"contrast": 0.4}}, SMALL),
}
SAMPLES = 5  # of the case with all ops; others have 2


def pictures(n: int, *shape: int) -> torch.Tensor:
    """Images of noise, uniform colors, grays, black and white."""
    x = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[1::5] = x[1::5] // 64 * 64
    x[2::5] = x[2::5, :1]
    x[3::5] = 255 * (x[3::5] > 128)
    x[4::5] = x[4::5, :, :1, :1]
    return x


def view_of(recipe: dict[str, Any], shape: tuple[int, ...]) -> ImageView:
    ops, _ = make_ops(recipe, "global", 0, shape, OPS, {})
    return ImageView(ops, shape, [0.5, 0.4, 0.3, 0.2, 0.1][: shape[0]], [0.2, 0.25, 0.3, 0.35, 0.4][: shape[0]])


def both(
    name: str, n: int, device: str = "cpu", reference: str = "cpu", **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The views of a case by kernels on a device, and by tensor code on the device `reference`."""
    view, raw = view_of(*CASES[name]), pictures(n, *CASES[name][1])
    draw = Draw(1, 2, torch.arange(n) * 7)
    there, here = raw.to(device), raw.to(reference)
    views = view.launched(view.transform(there, draw.to(device)), there, **options)
    with exact_products(here.device):
        return views, view.tensors(view.transform(here, draw.to(reference)), here)


def truncated(x: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16 without rounding."""
    return (x.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)


def interpret() -> dict[str, Any]:
    results = {}
    for name in CASES:
        views, expected = both(name, SAMPLES if name == "all" else 2)
        results[name] = [torch.equal(views, expected), float((views - expected).abs().max()), float(expected.std())]
    view, raw = both("all", 2, dtype=torch.bfloat16)
    results["bfloat16"] = [torch.equal(view, truncated(raw)), float((view.float() - raw).abs().max()), 1.0]
    view, raw = both("all", 2, dtype=torch.float16)
    results["float16"] = [torch.equal(view, raw.half()), float((view.float() - raw).abs().max()), 1.0]
    return results


class Compiled:
    """triton_kernels.py, whose kernels are compiled for their arguments and not launched."""

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.runtime import driver

        from sslcli.views.images import triton_kernels

        self.kernels: Any = triton_kernels
        self.texts: dict[str, str] = {}
        target = GPUTarget("cuda", 90, 32)
        driver.set_active(
            SimpleNamespace(
                get_current_device=lambda: 0, get_current_stream=lambda _: 0, get_current_target=lambda: target
            )
        )

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self.kernels, name)
        return _Warmup(name, kernel, self.texts) if name.endswith("_kernel") else kernel


class _Warmup:
    def __init__(self, name: str, kernel: Any, texts: dict[str, str]):
        self.name, self.kernel, self.texts = name, kernel, texts

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def warmup(*args: Any, **options: Any) -> None:
            text = self.kernel.warmup(*args, grid=grid, **options).asm["ptx"]
            self.texts[f"{self.name} {len(self.texts)}"] = text

        return warmup


def compile_all() -> dict[str, Any]:
    """By kernel: instructions that round otherwise than the tensor code."""
    kernels = Compiled()
    for name, dtype in (("all", torch.bfloat16), ("several tiles", torch.float32), ("1 channel", torch.float16)):
        both(name, 2, dtype=dtype, kernels=kernels)
    unsafe = re.compile(r"\b(?:fma|div\.full|[a-z0-9]+\.approx)\.[a-z.]*f(?:32|64)|\b(?:add|sub|mul|div)\.[a-z.]*ftz")
    return {name: sorted(set(unsafe.findall(text))) for name, text in kernels.texts.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert "triton" not in sys.modules  # imported where views are computed by its kernels only
    assert ("TRITON_INTERPRET" in os.environ) == (sys.argv[1] == "interpret")
    print(json.dumps(interpret() if sys.argv[1] == "interpret" else compile_all()))
