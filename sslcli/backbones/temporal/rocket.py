"""Random convolutional kernels, ROCKET: a baseline that is strong without any training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.backbones.temporal.frames import StepBackbone

LENGTH = 9  # of a kernel


class Rocket(StepBackbone):
    """Dempster, Petitjean & Webb, "ROCKET: Exceptionally Fast and Accurate Time Series Classification Using Random Convolutional
    Kernels", DMKD 2020 (arXiv:1910.13051).

    Two features of each kernel: the maximum of its output, and the share of positive values; `dim` is 2 x `kernels`. Weights are
    normal with mean 0 over a kernel, biases uniform in -1..1, dilations 1, 2, 4, ... up to the length of the series. Training,
    which the paper has not, follows the gradient of the maximum. Deviations: all kernels have length 9, padding, and all channels,
    over whose number the weights are scaled. Missing values are 0; steps without any value are in no feature.
    """

    def __init__(self, input_shape: tuple[int, ...], kernels: int = 512):
        super().__init__(input_shape)
        channels, steps = math.prod(self.input_shape[:-1]), self.input_shape[-1]
        count = min(kernels, 1 + int(math.log2(max(1.0, (steps - 1) / (LENGTH - 1)))))  # of dilations
        self.convs = nn.ModuleList()
        for i in range(count):
            some = kernels * (i + 1) // count - kernels * i // count
            conv = nn.Conv1d(channels, some, LENGTH, padding=(LENGTH - 1) // 2 * 2**i, dilation=2**i)
            with torch.no_grad():
                conv.weight.normal_(std=channels**-0.5)
                conv.weight -= conv.weight.mean(dim=(1, 2), keepdim=True)
                conv.bias.uniform_(-1, 1)  # type: ignore[union-attr]
            self.convs.append(conv)
        self.dim = 2 * kernels

    def forward(self, x: Tensor) -> Tensor:
        x = self.steps(x)
        valid = ~x.isnan().all(dim=1, keepdim=True)  # (B, 1, T)
        x, weight = x.nan_to_num(), valid.to(x.dtype)
        count = weight.sum(dim=2).clamp(min=1)
        largest, positive = [], []
        for conv in self.convs:
            h = conv(x)
            top = h.masked_fill(~valid, -math.inf).amax(dim=2)
            largest.append(torch.where(valid.any(dim=2), top, 0.0))
            positive.append(((h > 0) * weight).sum(dim=2) / count)
        return torch.cat([*largest, *positive], dim=1)
