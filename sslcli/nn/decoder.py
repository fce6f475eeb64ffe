"""Convolutional decoder from one feature vector to an image or a series."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """(B, dim) -> (B, *shape), for shape (C, H, W) or (C, T) of any size.

    A linear layer yields a small map (side at most `smallest`); each stage upsamples it to twice the size (nearest neighbor,
    cropped to the exact size) and convolves it, while the width halves. Upsampling before convolution avoids checkerboard
    artifacts (Odena et al., Distill 2016).
    """

    def __init__(self, dim: int, shape: tuple[int, ...], width: int = 32, smallest: int = 4):
        super().__init__()
        channels, *size = shape
        assert len(size) in (1, 2), shape
        sizes = [tuple(size)]
        while max(sizes[-1]) > smallest:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        self.sizes = sizes[::-1]
        conv = nn.Conv2d if len(size) == 2 else nn.Conv1d
        norm: type[nn.Module] = nn.BatchNorm2d if len(size) == 2 else nn.BatchNorm1d
        steps = len(sizes) - 1
        widths = [width * min(2 ** (steps - i), 8) for i in range(steps + 1)]
        self.start = (widths[0], *self.sizes[0])
        self.expand = nn.Linear(dim, math.prod(self.start))
        self.stages = nn.ModuleList(
            nn.Sequential(UpsampleConv(i, o, to), norm(o), nn.ReLU(inplace=True))
            for (i, o), to in zip(pairwise(widths), self.sizes[1:], strict=True)
        )
        self.out = conv(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.expand(z)).view(-1, *self.start)
        for stage in self.stages:
            x = stage(x)
        return self.out(x)


class UpsampleConv(nn.Module):
    """(B, before, *s) -> (B, after, *size), size between s and 2 s: nearest-neighbor upsampling, then a convolution of 3, no bias.

    Where size is 2 s, computed as one transposed convolution of 4 with stride 2, whose kernel sums the convolution's weights over
    duplicated pixels: equal results with 16 products per pixel instead of 36, and without the upsampled map in memory.
    """

    def __init__(self, before: int, after: int, size: tuple[int, ...]):
        super().__init__()
        conv = nn.Conv2d if len(size) == 2 else nn.Conv1d
        self.weight = conv(before, after, 3, bias=False).weight
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        flat = len(self.size) == 1
        if self.size != tuple(2 * s for s in x.shape[2:]):
            conv = F.conv1d if flat else F.conv2d
            return conv(F.interpolate(x, size=self.size, mode="nearest"), self.weight, padding=1)
        kernel = self.weight.transpose(0, 1)
        for dim in range(2, kernel.ndim):  # w0 w1 w2 becomes w2, w1 + w2, w0 + w1, w0
            kernel = kernel.flip(dim)
            after, before = ([0, 0] * (kernel.ndim - 1 - dim) + pad for pad in ([0, 1], [1, 0]))
            kernel = F.pad(kernel, after) + F.pad(kernel, before)
        back = F.conv_transpose1d if flat else F.conv_transpose2d
        return back(x, kernel, stride=2, padding=1)
