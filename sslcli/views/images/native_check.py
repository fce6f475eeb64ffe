"""Bit-for-bit comparison of the compiled image views, by C (native.c) and by Triton, with the tensor code."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from sslcli.rng import Draw
from sslcli.views.image import ImageView
from sslcli.views.images.color import ColorJitter, GaussianBlur, Grayscale, RandomIntensity, Solarize
from sslcli.views.images.geometry import HorizontalFlip, RandomResizedCrop, VerticalFlip
from sslcli.views.images.native import SAMPLES
from sslcli.views.images.resample import exact_products
from sslcli.views.op import Op


def matches_tensor_code(code: ctypes.CDLL, samples: int = SAMPLES) -> bool:
    """Whether the library's views of a few fixed samples have the bits of the tensor code."""
    view, raw = probe()
    raw = raw[:samples]
    draw = Draw(0, 0, torch.arange(len(raw)))
    out = view.compiled(view.transform(raw, draw), raw, code)
    return out is not None and torch.equal(view.tensors(view.transform(raw, draw), raw), out)


def kernels_match_tensor_code(device: torch.device, kernels: Any = None) -> bool:
    """Whether views by Triton kernels on a device have the bits of the tensor code there: of one tile and of several, with and
    without a crop, in color and in gray. `kernels`: see `triton_views.run`."""
    several: list[Op] = [RandomResizedCrop(size=64), ColorJitter(0.4, 0.4, 0.4, 0.1), Solarize(), GaussianBlur()]
    gray: list[Op] = [VerticalFlip(), ColorJitter(0.8, 0.8)]
    _, raw = probe()
    same = []
    for view, x in (probe(), (_view(several, (3, 40, 36)), raw), (_view(gray, (1, 40, 36)), raw[:, :1])):
        x, draw = x.to(device), Draw(0, 0, torch.arange(len(x), device=device))
        with exact_products(device):
            expected = view.tensors(view.transform(x, draw), x)
        same.append(torch.equal(view.launched(view.transform(x, draw), x, kernels=kernels), expected))
    return all(same)


def probe() -> tuple[ImageView, Tensor]:
    """A view with every op that has compiled code, and samples (B, C, H, W) uint8 for it."""
    ops: list[Op] = [
        RandomResizedCrop(size=33, interpolation="bicubic"),
        HorizontalFlip(),
        ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        Grayscale(),
        GaussianBlur(),
        Solarize(),
        VerticalFlip(),
        RandomIntensity(),
    ]
    raw = torch.arange(16 * 3 * 40 * 36).mul(2654435761).bitwise_right_shift(13).to(torch.uint8).view(16, 3, 40, 36)
    raw[::2] = raw[::2] // 64 * 64  # uniform areas too
    return _view(ops, (3, 40, 36)), raw


def _view(ops: list[Op], shape: tuple[int, ...]) -> ImageView:
    """The view of images of a shape by ops that are not bound yet."""
    bound = shape
    for op in ops:
        op.bind(bound)
        bound = op.out_shape(bound)
    return ImageView(ops, shape, (0.5, 0.4, 0.3)[: shape[0]], (0.2, 0.3, 0.25)[: shape[0]])
