"""Bit-for-bit comparison of the compiled image views (native.c) with the tensor code."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sslcli.rng import Draw
from sslcli.views.image import ImageView
from sslcli.views.images.color import ColorJitter, GaussianBlur, Grayscale, RandomIntensity, Solarize
from sslcli.views.images.geometry import HorizontalFlip, RandomResizedCrop, VerticalFlip
from sslcli.views.images.native import SAMPLES
from sslcli.views.op import Op


def matches_tensor_code(code: ctypes.CDLL, samples: int = SAMPLES) -> bool:
    """Whether the library's views of a few fixed samples have the bits of the tensor code."""
    view, raw = probe()
    raw = raw[:samples]
    draw = Draw(0, 0, torch.arange(len(raw)))
    out = view.compiled(view.transform(raw, draw), raw, code)
    return out is not None and torch.equal(view.tensors(view.transform(raw, draw), raw), out)


def probe() -> tuple[ImageView, Tensor]:
    """A view with every op that has compiled code, and samples (B, C, H, W) uint8 for it."""
    shape: tuple[int, ...] = (3, 40, 36)
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
    for op in ops:
        op.bind(shape)
        shape = op.out_shape(shape)
    raw = torch.arange(16 * 3 * 40 * 36).mul(2654435761).bitwise_right_shift(13).to(torch.uint8).view(16, 3, 40, 36)
    raw[::2] = raw[::2] // 64 * 64  # uniform areas too
    return ImageView(ops, (3, 40, 36), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)), raw
