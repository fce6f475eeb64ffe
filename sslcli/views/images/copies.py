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
MARGIN = 0.1  # of a side: what a shift and a scale may move in at each border
COLORS = 0.975  # least correlation of the color thumbnails of copies: other encodings and crops of photographs have .98
SHIFT = 0.06  # of a side: how far the content of one image may lie from that of the other


class ImageCopies(NearCopies):
    """Candidates have similar thumbnails. They are compared by the normalized cross-correlation of their details, the largest one
    over mirroring, scales within 6 % and shifts within 6 % of a side: details of different photographs do not correlate, however
    similar their layout and colors are. Details of simple shapes do, so that a copy is confirmed by its colors: thumbnails of both
    images, aligned, agree up to one scale and one offset."""

    note: ClassVar[str] = "other encodings, sizes and brightness, crops by about 5 %, mirror images"
    candidate: ClassVar[float] = 0.75
    threshold: ClassVar[float] = 0.87
    doubt: ClassVar[str] = "the colors differ"

    def __init__(self, shape: tuple[int, ...]):
        channels, height, width = shape
        self.grid = (channels, min(height, COARSE), min(width, COARSE))

    def describe(self, x: Tensor) -> Tensor:
        return unit(F.adaptive_avg_pool2d(x, self.grid[1:]).flatten(1))

    def variants(self, descriptors: Tensor) -> list[Tensor]:
        return [descriptors, descriptors.unflatten(1, self.grid).flip(3).flatten(1)]

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return align(a, b)[0]

    def confirmed(self, a: Tensor, b: Tensor) -> Tensor:
        return color_agreement(a, align(a, b)[1]) >= COLORS


def align(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The largest correlation (B,) of the details of two images over mirroring, scales and shifts, and the second image as it is
    there, (B, C, h, w), at most SIDE pixels on each axis."""
    spectrum, small = _spectrum(details(a)), resized(b)
    best, aligned = torch.zeros(len(a), device=a.device), small.clone()
    for other, color in ((details(b), small), (details(b).flip(2), small.flip(3))):
        for scale in SCALES:
            found, shift = _peak(spectrum * _spectrum(_zoom(other, scale)).conj(), other.shape[1:])
            better = torch.nonzero(found > best).flatten()
            if len(better):
                best[better] = found[better]
                zoomed = _zoom(color[better].flatten(0, 1), scale).view(len(better), *color.shape[1:])
                aligned[better] = _rolled(zoomed, shift[better])
    return best, aligned


def color_agreement(a: Tensor, aligned: Tensor) -> Tensor:
    """The correlation (B,) of color thumbnails, without a border that a shift moves in. All channels have one scale and one offset:
    another brightness or contrast agrees, another color does not."""
    a = resized(a)
    margins = [round(MARGIN * side) for side in a.shape[2:]]
    inner = [slice(margin, side - margin) for margin, side in zip(margins, a.shape[2:], strict=True)]
    thumbnails = [unit(F.adaptive_avg_pool2d(x[:, :, inner[0], inner[1]], COARSE).flatten(1)) for x in (a, aligned)]
    return (thumbnails[0] * thumbnails[1]).sum(dim=1)


def resized(x: Tensor) -> Tensor:
    """(B, C, H, W), at most SIDE pixels on each axis."""
    size = [min(side, SIDE) for side in x.shape[2:]]
    return x if size == list(x.shape[2:]) else F.interpolate(x, size, mode="bilinear", antialias=True)


def details(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, h, w), at most SIDE pixels on each axis: the mean of the channels without what a blur keeps."""
    gray = resized(x.mean(dim=1, keepdim=True))
    return (gray - blur(gray, 3 / SIDE * max(gray.shape[2:])))[:, 0]


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


def _peak(product: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """The largest correlation (B,) over shifts of at most SHIFT of a side, from a product of two spectra, and that shift (B, 2) of
    the second image, down and right, in pixels modulo the side."""
    correlation = torch.fft.irfft2(product, s=size)
    shifts = []
    for dim, side in ((1, size[0]), (2, size[1])):
        most = max(1, round(SHIFT * side))
        near = torch.arange(side, device=product.device)
        if 2 * most < side:
            near = torch.cat([near[: most + 1], near[side - most :]])
            correlation = correlation.index_select(dim, near)
        shifts.append(near)
    best, place = correlation.flatten(1).max(dim=1)
    width = correlation.shape[2]
    return best, torch.stack([shifts[0][place // width], shifts[1][place % width]], dim=1)


def _rolled(x: Tensor, shift: Tensor) -> Tensor:
    """(B, C, h, w), each sample rolled down and right by its shift (B, 2)."""
    for dim in (2, 3):
        side = x.shape[dim]
        index = (torch.arange(side, device=x.device) - shift[:, dim - 2, None]) % side
        index = index[:, None, :, None] if dim == 2 else index[:, None, None, :]
        x = x.gather(dim, index.expand_as(x))
    return x
