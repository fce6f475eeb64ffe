"""Crop and resize a batch, each sample with its own region, by two small matrix products.

The matrices hold the weights of an antialiasing filter over the pixels of the region, as in Pillow and torchvision
(`antialias=True`): half-pixel centers, the filter widened for downsampling, weights outside the region dropped and the others
normalized.

The sums are exact. Pixels are integers (0..255) and weights are rounded to multiples of 2**-12 that sum to one, so each partial sum
is an integer below 2**24, which float32 represents exactly. So the order of summation in a matrix product, which differs between
libraries, devices, thread counts and batch sizes, does not affect the result. Compared with unrounded weights the error is at most
some tenths of one of the 255 levels.

B samples, C channels, (H, W) the input size, (h, w) the output size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

FILTERS = {"bilinear": 1.0, "bicubic": 2.0}  # name -> radius
_WEIGHT = 12  # bits of a weight
_BELL = 30  # bits of the filter, so that the sum of the weights is exact too
_MIDDLE = 3  # bits kept below one level between the two products: 255 * 8 * 4096 * (overshoot of both passes) < 2**24
_BLUR = 12  # bits of a pixel in a blur, whose weights are all positive: 4096 * 4096 = 2**24


class Region(NamedTuple):
    """A rectangle per sample, in pixels: (B,) float64 with integer values each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def rows(self, part: slice) -> Region:
        """The rectangles of some samples."""
        return Region(*(v[part] for v in self))

    def to(self, device: torch.device) -> Region:
        return Region(*(v.to(device) for v in self))


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Matrix products in full float32: no autocast, TF32 or bfloat16, which would round exact values."""
    backends: dict[str, Any] = {"cuda": torch.backends.cuda, "cpu": torch.backends.mkldnn}
    switch = backends[device.type].matmul if device.type in backends else None
    before = switch.fp32_precision if switch else None
    with torch.autocast(device.type, enabled=False):
        if switch:
            switch.fp32_precision = "ieee"
        try:
            yield
        finally:
            if switch:
                switch.fp32_precision = before


def _bell(distance: Tensor, name: str) -> Tensor:
    """Filter weight at a distance, in place: Pillow's triangle and cubic (Keys 1981, a = -1/2)."""
    if name == "bilinear":
        return distance.neg_().add_(1).clamp_(min=0)
    near = (distance * 1.5 - 2.5) * distance * distance + 1
    far = ((distance * -0.5 + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, far.masked_fill_(distance >= 2, 0.0))


def weights(start: Tensor, length: Tensor, size: int, out: int, name: str, flip: Tensor | None = None) -> Tensor:
    """Filter matrix of one axis: (B, out, size) float32 of integers that sum to 2**12 along the last axis.

    `start`, `length` (B,) float64: the region. `flip` (B,) bool: the samples to mirror.
    """
    centers = torch.arange(out, dtype=torch.float64, device=start.device) + 0.5
    if flip is not None:
        centers = torch.where(flip[:, None], out - centers, centers)  # (B, out)
    scale = (length / out)[:, None]
    centers = (centers * scale + start[:, None])[:, :, None]  # (B, out, 1)
    widen = scale.clamp(min=1.0)[:, :, None]
    # `taps` pixels cover the widest possible filter; at the edges they are shifted into the sample
    taps = min(size, math.ceil(2 * FILTERS[name] * max(1.0, size / out)))
    first = (centers - FILTERS[name] * widen + 0.5).floor_().clamp_(0, size - taps)
    pixel = first + torch.arange(taps, dtype=torch.float64, device=start.device)  # (B, out, taps)
    weight = _bell((pixel + 0.5 - centers).abs_().div_(widen), name)
    low, high = start[:, None, None], (start + length)[:, None, None]
    weight.mul_((pixel >= low).logical_and_(pixel < high))
    weight.mul_(2.0**_BELL).round_()
    weight.div_(weight.sum(-1, keepdim=True))
    weight = weight.mul_(2.0**_WEIGHT).round_()
    largest = weight.argmax(-1, keepdim=True)
    weight.scatter_add_(-1, largest, 2.0**_WEIGHT - weight.sum(-1, keepdim=True))
    matrix = torch.zeros(len(start), out, size, dtype=torch.float32, device=start.device)
    return matrix.scatter_(-1, pixel.to(torch.int64), weight.to(torch.float32))


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) uint8 and matrices (B, h, H), (B, w, W) -> (B, C, h, w) float32 in 0..1."""
    n, c, height, width = x.shape
    middle = torch.bmm(x.to(torch.float32).reshape(n, c * height, width), columns.transpose(1, 2))
    middle.mul_(2.0 ** (_MIDDLE - _WEIGHT)).round_()
    y = torch.matmul(rows[:, None], middle.view(n, c, height, -1))
    return y.mul_(2.0 ** -(_MIDDLE + _WEIGHT) / 255).clamp_(0, 1)  # the cubic filter overshoots


def crop_resize(x: Tensor, region: Region, size: tuple[int, int], name: str, flip: Tensor | None = None) -> Tensor:
    """(B, C, H, W) uint8 -> (B, C, *size) float32 in 0..1: each sample's region resized, and mirrored where `flip`."""
    rows = weights(region.top, region.height, x.shape[2], size[0], name)
    columns = weights(region.left, region.width, x.shape[3], size[1], name, flip)
    return resample(x, rows, columns)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect positions outside 0..size-1 into the axis without repeating the edge, from any distance."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.abs().remainder(2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)


@lru_cache(maxsize=32)
def _bands(size: int, radius: int, device: str) -> Tensor:
    """(2 radius + 1, size * size): row k is 1 where an output pixel reads its k-th neighbor."""
    neighbor = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)  # (size, taps)
    bands = torch.zeros(2 * radius + 1, size, size)
    for k, column in enumerate(_mirror(neighbor, size).T):
        bands[k, torch.arange(size), column] = 1
    return bands.view(2 * radius + 1, size * size).to(device)


def gaussian(sigma: Tensor, radius: int) -> Tensor:
    """Gaussian kernels of `sigma` (B,) float64 pixels: (B, 2 radius + 1) float32 of integers that sum to 2**12."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64, device=sigma.device)
    bell = (at / sigma[:, None]).square_().mul_(-0.5).exp_()
    bell.div_(bell.sum(1, keepdim=True)).mul_(2.0**_WEIGHT).round_()
    bell[:, radius] += 2.0**_WEIGHT - bell.sum(1)
    return bell.to(torch.float32)


def _slide(x: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Convolve (B, C, H, W) along one axis with a kernel (B, taps) per sample, edges reflected."""
    size, radius = x.shape[axis], kernel.shape[1] // 2
    at = torch.arange(-radius, size + radius, device=x.device)
    x = x.index_select(axis, _mirror(at, size))
    total = torch.zeros(())
    for k in range(kernel.shape[1]):
        part = x.narrow(axis, k, size)
        # integers below 2**24: a fused multiply-add gives the same result as two roundings
        total = (
            part * kernel[:, k, None, None, None] if k == 0 else total.addcmul_(part, kernel[:, k, None, None, None])
        )
    return total


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Blur (B, C, H, W) float32 in 0..1 with a kernel per sample (from `gaussian`), edges reflected."""
    n, c, height, width = x.shape
    x = (x * 2.0**_BLUR).round_()
    if max(height, width) <= 64:  # dense matrices: fastest for few pixels
        taps = kernel.shape[1]
        rows = (kernel @ _bands(height, taps // 2, str(x.device))).view(n, height, height)
        columns = rows if width == height else (kernel @ _bands(width, taps // 2, str(x.device))).view(n, width, width)
        middle = torch.bmm(x.reshape(n, c * height, width), columns.transpose(1, 2)).mul_(2.0**-_WEIGHT).round_()
        y = torch.matmul(rows[:, None], middle.view(n, c, height, width))
    else:
        middle = _slide(x, kernel, 3).mul_(2.0**-_WEIGHT).round_()
        y = _slide(middle, kernel, 2)
    return y.mul_(2.0 ** -(_BLUR + _WEIGHT))
