"""Decoders from one feature vector to predictions of a whole sample: numbers on a grid, columns of a table, or tokens."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.heads import mlp
from sslcli.nn.transformer import Block, init_linear
from sslcli.nn.values import Columns, Continuous, Tokens, Values

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}  # number of axes -> layer
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def decoder(values: Values, shape: tuple[int, ...], dim: int, width: int = 32) -> nn.Module:
    """A module (B, dim) -> predictions for `values.likelihood()` of whole samples of `shape`.

    `width`: of the last convolution; the others decode with 8 x `width` hidden units."""
    if isinstance(values, Columns):
        return mlp(dim, 8 * width, 8 * width, values.slices.outputs)
    if isinstance(values, Tokens):
        return TokenDecoder(dim, shape, values.size, 8 * width)
    assert isinstance(values, Continuous), values
    return ConvDecoder(dim, shape, width)


class ConvDecoder(nn.Module):
    """(B, dim) -> (B, *shape), for shape (C, T), (C, H, W) or (C, T, H, W) of any size.

    A linear layer yields a small map (side at most `smallest`); each stage upsamples it to twice the size (nearest neighbor,
    cropped to the exact size) and convolves it, while the width halves. Upsampling before convolution avoids checkerboard
    artifacts (Odena et al., Distill 2016).
    """

    def __init__(self, dim: int, shape: tuple[int, ...], width: int = 32, smallest: int = 4):
        super().__init__()
        channels, *size = shape
        assert len(size) in CONV, shape
        sizes = [tuple(size)]
        while max(sizes[-1]) > smallest:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        self.sizes = sizes[::-1]
        conv, norm = CONV[len(size)], NORM[len(size)]
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
        self.weight = CONV[len(size)](before, after, 3, bias=False).weight
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        axes = len(self.size)
        if self.size != tuple(2 * s for s in x.shape[2:]):
            conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
            return conv(F.interpolate(x, size=self.size, mode="nearest"), self.weight, padding=1)
        kernel = self.weight.transpose(0, 1)
        for dim in range(2, kernel.ndim):  # w0 w1 w2 becomes w2, w1 + w2, w0 + w1, w0
            kernel = kernel.flip(dim)
            after, before = ([0, 0] * (kernel.ndim - 1 - dim) + pad for pad in ([0, 1], [1, 0]))
            kernel = F.pad(kernel, after) + F.pad(kernel, before)
        back = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        return back(x, kernel, stride=2, padding=1)


class TokenDecoder(nn.Module):
    """(B, dim) -> logits (B, N, size) of N tokens: a learned query per position, to which the code is added, then `depth`
    transformer blocks. All positions are predicted at once, so that the code is all that the decoder knows of the sample."""

    def __init__(self, dim: int, shape: tuple[int, ...], size: int, width: int, depth: int = 2, heads: int = 4):
        super().__init__()
        width = -(-width // heads) * heads
        self.code = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.empty(math.prod(shape), width).normal_(std=0.02))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, size)
        self.apply(init_linear)

    def forward(self, z: Tensor) -> Tensor:
        x = self.code(z)[:, None] + self.positions
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))
