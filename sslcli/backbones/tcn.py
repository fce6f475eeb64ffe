"""Temporal convolutional network (TCN) for series of any length; NaN is padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.backbones.temporal.frames import FrameBackbone, require_odd, stride_of


class TCN(FrameBackbone):
    """Residual blocks of two dilated convolutions (dilation 1, 2, 4, ...), then the mean over time, or another `pool`.

    Bai, Kolter & Koltun, arXiv:1803.01271. Deviations: the convolutions are centered, not causal (a representation may use both
    directions), each follows a layer norm over channels instead of weight norm, and there is no dropout.

    A time step where all channels are NaN is padding: it is zero for every convolution and excluded from the pooling, so that a
    padded series has the features of the series itself. A single NaN is replaced by 0, the mean of a normalized channel.
    `stride: auto` makes the first convolution reduce the series to at most 96 steps (stride 1, 2, 4, ...).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 64,
        depth: int = 4,
        kernel: int = 3,
        stride: int | str = "auto",
        pool: str = "mean",
    ):
        super().__init__(input_shape, pool)
        require_odd(kernel)
        self.stride = stride_of(stride, self.input_shape[-1])
        first = max(kernel, 2 * self.stride - 1)
        self.stem = nn.Conv1d(self.channels, width, first, self.stride, padding=first // 2)
        self.blocks = nn.ModuleList(DilatedBlock(width, kernel, 2**i) for i in range(depth))
        self.norm = ChannelNorm(width)
        self.set_width(width)

    def frames(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        x = self.steps(x)
        valid = self.present(x).to(x.dtype)[:, None]  # (B, 1, N)
        x = self.stem(x.nan_to_num()) * valid  # (B, width, N)
        if hidden is not None:
            x = x.masked_fill(hidden[:, None], 0.0)
        for block in self.blocks:
            x = block(x, valid)
        out: Tensor = self.norm(x).transpose(1, 2)
        return out


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
