"""Temporal convolutional network (TCN) for series of any length; NaN is padding."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError


class TCN(Backbone):
    """Residual blocks of two dilated convolutions (dilation 1, 2, 4, ...), then the mean over time; `dim` is `width`.

    Bai, Kolter & Koltun, arXiv:1803.01271. Deviations: the convolutions are centered, not causal (a representation may use both
    directions), each follows a layer norm over channels instead of weight norm, and there is no dropout.

    x is (B, C, T). A time step where all channels are NaN is padding: it is zero for every convolution and excluded from the mean,
    so that a padded series has the features of the series itself. A single NaN is replaced by 0, the mean of a normalized channel.
    `stride: auto` makes the first convolution reduce the series to at most 96 steps (stride 1, 2, 4, ...).
    """

    accepts: ClassVar = {"continuous": (2,)}

    def __init__(
        self, input_shape: tuple[int, ...], width: int = 64, depth: int = 4, kernel: int = 3, stride: int | str = "auto"
    ):
        super().__init__(input_shape)
        channels, steps = input_shape
        if kernel % 2 == 0:
            raise RequestError(
                f"backbone.kernel: expected an odd integer, got {kernel}", f"backbone.kernel={kernel + 1}"
            )
        if stride == "auto":
            self.stride = 1
            while -(-steps // self.stride) > 96:
                self.stride *= 2
        elif isinstance(stride, str) or stride < 1:
            raise RequestError(
                f"backbone.stride: expected a positive integer or auto, got {stride!r}", "backbone.stride=auto"
            )
        else:
            self.stride = stride
        first = max(kernel, 2 * self.stride - 1)
        self.stem = nn.Conv1d(channels, width, first, self.stride, padding=first // 2)
        self.blocks = nn.ModuleList(DilatedBlock(width, kernel, 2**i) for i in range(depth))
        self.norm = ChannelNorm(width)
        self.dim = width

    def forward(self, x: Tensor) -> Tensor:
        valid = (~x.isnan().all(dim=1, keepdim=True)).to(x.dtype)  # (B, 1, T)
        x = self.stem(x.nan_to_num())
        if self.stride > 1:  # an output step covers `stride` input steps; it is valid if one of them is
            valid = F.max_pool1d(valid, self.stride, ceil_mode=True)
        x = x * valid  # (B, width, T / stride)
        for block in self.blocks:
            x = block(x, valid)
        return (self.norm(x) * valid).sum(dim=2) / valid.sum(dim=2).clamp(min=1)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, T); without statistics over time, padding has no influence."""

    def __init__(self, channels: int):
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class DilatedBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, width: int, kernel: int, dilation: int):
        super().__init__()
        pad = dilation * (kernel // 2)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.conv1 = nn.Conv1d(width, width, kernel, padding=pad, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=pad, dilation=dilation)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)) * valid)
        y = self.conv2(torch.relu(self.norm2(y)) * valid)
        return x + y * valid
