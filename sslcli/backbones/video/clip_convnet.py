"""A small convolutional network on the frames of clips."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError


class ClipConvNet(Backbone):
    """Clips (C, T, H, W): the same convolutions on each frame, at a quarter of the resolution, as the spatial encoder of SimVP (Gao
    et al., CVPR 2022, arXiv:2206.05099), with batch norm in place of group norm.

    `maps`: (B, T, D, h, w), D = 2 x `width`, h = H / 4, w = W / 4, rounded up. `forward`: (B, 4 x `width`), the mean of the maps
    over time and space, and the mean absolute change from one frame to the next, in which motion is visible. Any number of frames
    and any size are supported.
    """

    accepts: ClassVar = {"continuous": (4,)}

    def __init__(self, input_shape: tuple[int, ...], width: int = 32, blocks: int = 1):
        super().__init__(input_shape)
        if min(width, blocks) < 1:
            raise RequestError(f"backbone.width={width} and backbone.blocks={blocks} must be at least 1")
        self.map_dim = 2 * width
        self.dim = 2 * self.map_dim
        layers: list[nn.Module] = [unit(self.input_shape[0], width, 2), unit(width, self.map_dim, 2)]
        self.features = nn.Sequential(*layers, *(unit(self.map_dim, self.map_dim, 1) for _ in range(blocks)))

    def maps(self, x: Tensor) -> Tensor:
        b, _, t, *_ = x.shape
        each = self.features(x.transpose(1, 2).flatten(0, 1))  # (B T, D, h, w)
        return each.unflatten(0, (b, t))

    def forward(self, x: Tensor) -> Tensor:
        h = self.maps(x)
        change = h.diff(dim=1).abs().mean(dim=(1, 3, 4)) if h.shape[1] > 1 else torch.zeros_like(h[:, 0, :, 0, 0])
        return torch.cat([h.mean(dim=(1, 3, 4)), change], dim=1)


def unit(before: int, after: int, stride: int) -> nn.Sequential:
    """A convolution of 3, batch norm, SiLU."""
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.SiLU(inplace=True))
