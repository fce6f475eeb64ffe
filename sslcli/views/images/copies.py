"""Near copies of images: other encodings, sizes and colors, small crops, mirror images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.copies import NearCopies, unit
from sslcli.views.images.corruptions import blur

COARSE = 12  # places on each axis of a descriptor
LEAST_SIDE = 24  # pixels: smaller images of one class correlate like copies
SIDE = 64  # pixels at most on each axis of the images that are compared
SCALES = (1.0, 1.03, 1.06, 1 / 1.03, 1 / 1.06)  # of one image to the other: a crop by 5 % scales by 1.05
SHIFT = 0.06  # of a side: how far the content of one image may lie from that of the other


class ImageCopies(NearCopies):
    """Candidates have similar thumbnails. They are compared by the normalized cross-correlation of their details, the largest one
    over mirroring, scales within 6 % and shifts within 6 % of a side: details of different photographs do not correlate, however
    similar their layout and colors are."""

    note: ClassVar[str] = "other encodings, sizes and brightness, crops by about 5 %, mirror images"
    candidate: ClassVar[float] = 0.75
    threshold: ClassVar[float] = 0.87

    def __init__(self, shape: tuple[int, ...]):
        channels, height, width = shape
        self.grid = (channels, min(height, COARSE), min(width, COARSE))

    def describe(self, x: Tensor) -> Tensor:
        return unit(F.adaptive_avg_pool2d(x, self.grid[1:]).flatten(1))

    def variants(self, descriptors: Tensor) -> list[Tensor]:
        return [descriptors, descriptors.unflatten(1, self.grid).flip(3).flatten(1)]

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = details(a), details(b)
        spectrum = _spectrum(a)
        best = torch.zeros(len(a), device=a.device)
        for other in (b, b.flip(2)):
            for scale in SCALES:
                best = torch.maximum(best, _peak(spectrum * _spectrum(_zoom(other, scale)).conj(), a.shape[1:]))
        return best


def details(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, h, w), at most SIDE pixels on each axis: the mean of the channels without what a blur keeps."""
    size = [min(side, SIDE) for side in x.shape[2:]]
    gray = x.mean(dim=1, keepdim=True)
    if size != list(gray.shape[2:]):
        gray = F.interpolate(gray, size, mode="bilinear", antialias=True)
    return (gray - blur(gray, 3 / SIDE * max(size)))[:, 0]


def _zoom(x: Tensor, scale: float) -> Tensor:
    """(B, h, w), magnified about its center."""
    if scale == 1:
        return x
    matrix = torch.tensor([[1 / scale, 0, 0], [0, 1 / scale, 0]], device=x.device).expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, [len(x), 1, *x.shape[1:]], align_corners=False)
    return F.grid_sample(x[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0]


def _spectrum(x: Tensor) -> Tensor:
    """The Fourier transform of (B, h, w) without its mean, with norm 1, and fading towards the border."""
    window = [torch.hann_window(side + 2, periodic=False, device=x.device)[1:-1].sqrt() for side in x.shape[1:]]
    faded = (x - x.mean(dim=(1, 2), keepdim=True)) * window[0][:, None] * window[1]
    return torch.fft.rfft2(F.normalize(faded.flatten(1), dim=1).view_as(x))


def _peak(product: Tensor, size: torch.Size) -> Tensor:
    """The largest correlation (B,) over shifts of at most SHIFT of a side, from a product of two spectra."""
    correlation = torch.fft.irfft2(product, s=size)
    for dim, side in ((1, size[0]), (2, size[1])):
        most = max(1, round(SHIFT * side))
        near = torch.cat([torch.arange(most + 1), torch.arange(side - most, side)]) if 2 * most < side else None
        if near is not None:
            correlation = correlation.index_select(dim, near.to(correlation.device))
    return correlation.amax(dim=(1, 2))
