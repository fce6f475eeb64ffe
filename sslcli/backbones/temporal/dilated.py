"""Residual network of dilated convolutions over the frames of a series, the encoder of TS2Vec."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.temporal.frames import FrameBackbone, require_odd, stride_of


class Dilated(FrameBackbone):
    """A linear layer on each frame, `depth` residual blocks of width `width`, and a last one of width `out`; block i has dilation
    2^i, so that a frame sees 2^(depth + 2) steps on both sides. No normalization.

    Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022, Sec. 3.2 (arXiv:2106.10466), with the layers,
    sizes and initialization of the authors' code. Deviations: a missing value of one channel is 0, where theirs hides all channels
    of the step; frames without any value stay 0 in every layer and are not pooled, so that a padded series has the features of
    the series itself.

    `stride`: time steps of a frame, 1 in the paper; `auto`: for at most 96 frames. `dropout`: of the output.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 64,
        depth: int = 10,
        out: int = 320,
        kernel: int = 3,
        stride: int | str = 1,
        dropout: float = 0.1,
        pool: str = "max",
    ):
        super().__init__(input_shape, pool)
        require_odd(kernel)
        self.stride = stride_of(stride, self.input_shape[-1])
        self.embed = nn.Linear(self.frame_size, width)
        widths = [width] * (depth + 1) + [out]
        self.blocks = nn.ModuleList(
            ConvBlock(a, b, kernel, 2**i, last=i == depth) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.dropout = nn.Dropout(dropout)
        self.set_width(out)

    def frames(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        valid = self.present(x)[:, :, None]  # (B, N, 1)
        h = self.embed(self.frame_values(x).nan_to_num())
        h = h.masked_fill(~valid if hidden is None else ~valid | hidden[:, :, None], 0.0).transpose(1, 2)
        weight = valid.to(h.dtype).transpose(1, 2)
        for block in self.blocks:
            h = block(h, weight)
        out: Tensor = self.dropout(h.transpose(1, 2))
        return out


class ConvBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))); where the width changes, and in the last block, a convolution of size 1 maps x."""

    def __init__(self, width: int, out: int, kernel: int, dilation: int, last: bool = False):
        super().__init__()
        pad = dilation * (kernel // 2)
        self.conv1 = nn.Conv1d(width, out, kernel, padding=pad, dilation=dilation)
        self.conv2 = nn.Conv1d(out, out, kernel, padding=pad, dilation=dilation)
        self.shortcut = nn.Conv1d(width, out, 1) if last or width != out else nn.Identity()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        y = self.conv1(F.gelu(x)) * weight
        y = self.conv2(F.gelu(y))
        return (y + self.shortcut(x)) * weight
