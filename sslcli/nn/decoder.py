"""From one vector back to an image or a series."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """(B, dim) -> (B, *shape), for shape (C, H, W) or (C, T) of any size.

    A linear layer makes a small map (side at most `smallest`); then the map is doubled (nearest neighbour, cut to the
    exact size) and convolved until it has the wanted size, while the width halves. Upsampling before the convolution
    leaves no checkerboard (Odena et al., Distill 2016).
    """

    def __init__(self, dim: int, shape: tuple[int, ...], width: int = 32, smallest: int = 4):
        super().__init__()
        channels, *size = shape
        assert len(size) in (1, 2), shape
        sizes = [tuple(size)]
        while max(sizes[-1]) > smallest:
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        self.sizes = sizes[::-1]
        conv: type[nn.Module] = nn.Conv2d if len(size) == 2 else nn.Conv1d
        norm: type[nn.Module] = nn.BatchNorm2d if len(size) == 2 else nn.BatchNorm1d
        steps = len(sizes) - 1
        widths = [width * min(2 ** (steps - i), 8) for i in range(steps + 1)]
        self.start = (widths[0], *self.sizes[0])
        self.expand = nn.Linear(dim, math.prod(self.start))
        self.stages = nn.ModuleList(
            nn.Sequential(conv(i, o, 3, padding=1, bias=False), norm(o), nn.ReLU(inplace=True))
            for i, o in pairwise(widths)
        )
        self.out = conv(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.expand(z)).view(-1, *self.start)
        for size, stage in zip(self.sizes[1:], self.stages, strict=True):
            x = stage(F.interpolate(x, size=size, mode="nearest"))
        return self.out(x)
