"""A small convolutional network that trains in minutes on a CPU."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError

POOLS = ("mean", "rows")


class ConvNet(Backbone):
    """Stages of conv3x3-BatchNorm-ReLU; each stage doubles the width (at most 8 x) and halves the resolution.

    The resolution is halved until the longer side is at most 4, and at least twice: 8 -> 4 -> 2 with widths 32, 64, 128 and
    `dim` 128; 32 -> 16 -> 8 -> 4 with `dim` 256. The last stage has one convolution, the others `blocks`. Images larger than 64
    begin with a convolution of stride 2, 4, ... that reduces them to at most 64, so that 224 x 224 costs as much as 56 x 56. Any
    number of channels, any size.

    `pool`: mean of the positions; or `rows`, for spectrograms: the mean and the maximum of each row of the last stage along it,
    side by side, so that pitch is kept and time is not (Niizumi et al., "BYOL for Audio", IJCNN 2021). Then `dim` is 2 x rows
    times as large.

    `center`: subtract from each row of a sample its mean along it. For spectrograms of speech, whose bands have means that differ
    between voices and microphones (cepstral mean normalization; Atal, JASA 1974). Silence in a clip, and after it, counts.
    """

    accepts: ClassVar = {"continuous": (3,)}

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 32,
        blocks: int = 2,
        pool: str = "mean",
        center: bool = False,
    ):
        super().__init__(input_shape)
        if min(width, blocks) < 1:
            raise RequestError(f"backbone.width={width} and backbone.blocks={blocks} must be at least 1")
        if pool not in POOLS:
            raise RequestError(f"backbone.pool: expected {' or '.join(POOLS)}, got {pool!r}", "backbone.pool=mean")
        channels, side = input_shape[0], max(input_shape[1:])
        stem = 1
        while side > 64:
            side, stem = -(-side // 2), 2 * stem
        halvings = 2
        while -(-side // 2**halvings) > 4:
            halvings += 1
        layers: list[nn.Module] = []
        before = channels
        for stage in range(halvings + 1):
            wide = width * min(2**stage, 8)
            for block in range(blocks if stage < halvings else 1):
                stride = stem if stage == 0 else 2
                layers.append(unit(before, wide, stride if block == 0 else 1))
                before = wide
        self.features = nn.Sequential(*layers)
        rows = -(-input_shape[1] // (stem * 2**halvings))
        self.dim, self.pool, self.center = before if pool == "mean" else 2 * before * rows, pool, center

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x - x.mean(dim=3, keepdim=True) if self.center else x)
        if self.pool == "mean":
            return h.mean(dim=(2, 3))
        return torch.cat([h.mean(dim=3), h.amax(dim=3)], dim=1).flatten(1)


def unit(before: int, after: int, stride: int) -> nn.Sequential:
    """A convolution whose kernel covers its stride, batch norm, ReLU. The output size is ceil(size / stride)."""
    kernel = max(3, 2 * stride - 1)
    conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
