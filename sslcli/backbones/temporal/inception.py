"""Convolutional network with kernels of several lengths in parallel, InceptionTime."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.temporal.frames import FrameBackbone, stride_of
from sslcli.errors import RequestError


class Inception(FrameBackbone):
    """Ismail Fawaz et al., "InceptionTime: Finding AlexNet for Time Series Classification", DMKD 2020 (arXiv:1909.04939).

    One network of `depth` modules, with a residual connection around every three; the features of a frame are 4 x `width`. A
    module has a bottleneck, convolutions of three lengths (`kernel`, about a half and about a quarter of it) and a maximum of
    three frames, then batch norm. Deviations: odd kernels, so that frames stay aligned; frames without any value are 0 before
    each module and not pooled. `stride`: time steps of a frame, 1 in the paper; `auto`: for at most 96 frames.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 32,
        depth: int = 6,
        kernel: int = 39,
        stride: int | str = "auto",
        pool: str = "mean",
    ):
        super().__init__(input_shape, pool)
        if kernel < 9:
            raise RequestError(f"backbone.kernel: expected at least 9, got {kernel}", "backbone.kernel=39")
        self.stride = stride_of(stride, self.input_shape[-1])
        kernels = [k - 1 + k % 2 for k in (kernel, kernel // 2, kernel // 4)]
        widths = [self.frame_size, *[4 * width] * depth]
        self.layers = nn.ModuleList(InceptionModule(widths[i], width, kernels) for i in range(depth))
        ends = range(2, depth, 3)  # the last modules of the residual blocks
        self.shortcuts = nn.ModuleList(Shortcut(widths[i - 2], 4 * width) for i in ends)
        self.set_width(4 * width)

    def frames(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        valid = self.present(x)[:, None]  # (B, 1, N)
        h = self.frame_values(x).nan_to_num().transpose(1, 2)
        if hidden is not None:  # the first layer has no bias
            h = h.masked_fill(hidden[:, None], 0.0)
        start = h
        for i, module in enumerate(self.layers):
            h = module(h, valid)
            if i % 3 == 2:
                h = torch.relu(h + self.shortcuts[i // 3](start)).masked_fill(~valid, 0.0)
                start = h
        out: Tensor = h.transpose(1, 2)
        return out


class InceptionModule(nn.Module):
    """(B, C, N), and where a frame has a value (B, 1, N) -> (B, 4 x width, N)."""

    def __init__(self, channels: int, width: int, kernels: list[int]):
        super().__init__()
        self.bottleneck = nn.Conv1d(channels, width, 1, bias=False)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, k, padding=k // 2, bias=False) for k in kernels)
        self.pooled = nn.Conv1d(channels, width, 1, bias=False)
        self.norm = nn.BatchNorm1d(4 * width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        parts = [conv(narrow) for conv in self.convs]
        largest = F.max_pool1d(x.masked_fill(~valid, -math.inf), 3, 1, padding=1).masked_fill(~valid, 0.0)
        parts.append(self.pooled(largest))
        return torch.relu(self.norm(torch.cat(parts, dim=1))).masked_fill(~valid, 0.0)


class Shortcut(nn.Sequential):
    def __init__(self, channels: int, width: int):
        super().__init__(nn.Conv1d(channels, width, 1, bias=False), nn.BatchNorm1d(width))
