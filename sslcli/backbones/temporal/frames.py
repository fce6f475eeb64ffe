"""Base class of backbones with features for each frame of a series or spectrogram, and their pooling over time."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError
from sslcli.nn.likelihood import Likelihood
from sslcli.nn.values import Continuous, Values

POOLS = ("mean", "max", "both", "last")
SILENT = 1e-3  # standard deviations of a band: rounding of the logarithm of no power
MAX_FRAMES = 96  # of `stride: auto`: the memory and time of a step grow with the number of frames


class StepBackbone(Backbone):
    """A backbone of series (C, T), or spectrograms (C, F, T) whose C * F values of a step are its channels.

    `steps(x)`: (B, *shape) -> (B, channels, T), NaN where there is no value: what is missing or padding, and the steps without
    sound at the end of a spectrogram, with which a clip is filled up (`values.silence`)."""

    accepts: ClassVar = {"continuous": (2, 3)}
    silence: Tensor | None  # (F, 1)

    def __init__(self, input_shape: tuple[int, ...]):
        super().__init__(input_shape)
        self.register_buffer("silence", None, persistent=False)

    def set_values(self, values: Values) -> None:
        super().set_values(values)
        silence = values.silence if isinstance(values, Continuous) else ()
        self.silence = torch.tensor(silence)[:, None] if silence else None

    def steps(self, x: Tensor) -> Tensor:
        x = x.flatten(1, -2)
        return x if self.silence is None else without_silence(x, self.silence)


class FrameBackbone(StepBackbone):
    """A backbone with a feature vector for each frame, which is a time step or `stride` of them.

    Samples are series (C, T), or spectrograms (C, F, T), whose C * F values of a step are its channels; T may be smaller than in
    `input_shape`. NaN is missing or padding. N = ceil(T / stride) frames, P = stride * (values of a step).

    `frames(x, hidden)`: (B, *shape) -> (B, N, frame_dim). The embeddings of the frames where `hidden` (B, N) is true are replaced
    by 0 before the layers over time.
    `present(x)`: (B, N), the frames that hold any value.
    `crop(x, start, count)`: samples of some frames of each sample.
    `frame_values(x)`: (B, N, P), the values of each frame, NaN where there is none; `from_frame_values` is its inverse for samples
    of `input_shape`.
    `causal`: whether the features of a frame are a function of the frames up to it.
    `forward(x)`: (B, dim), pooled over the frames that hold a value by `pool`: their mean, their maximum, both (dim is then
    2 x frame_dim), or the last of them. 0 for a sample without any value.
    """

    causal: bool = False
    frame_dim: int
    stride: int = 1

    def __init__(self, input_shape: tuple[int, ...], pool: str = "mean"):
        super().__init__(input_shape)
        if pool not in POOLS:
            raise RequestError(f"backbone.pool: expected {', '.join(POOLS)}, got {pool!r}", "backbone.pool=mean")
        self.pool = pool
        self.channels = math.prod(self.input_shape[:-1])

    def set_width(self, width: int) -> None:
        """Sets `frame_dim`, and `dim` by the pooling."""
        self.frame_dim = width
        self.dim = 2 * width if self.pool == "both" else width

    @property
    def num_frames(self) -> int:
        """N of a sample of `input_shape`."""
        return -(-self.input_shape[-1] // self.stride)

    @property
    def frame_size(self) -> int:
        """P, the number of values of a frame."""
        return self.stride * self.channels

    def frames(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no frames")

    def forward(self, x: Tensor) -> Tensor:
        return pool_frames(self.frames(x), self.present(x), self.pool)

    def present(self, x: Tensor) -> Tensor:
        return ~self.frame_values(x).isnan().all(dim=2)

    def frame_values(self, x: Tensor) -> Tensor:
        x = self.steps(x)
        missing = -x.shape[2] % self.stride
        if missing:
            x = F.pad(x, (0, missing), value=math.nan)
        return x.unflatten(2, (-1, self.stride)).permute(0, 2, 3, 1).flatten(2)

    def from_frame_values(self, values: Tensor) -> Tensor:
        x = values.unflatten(2, (self.stride, self.channels)).permute(0, 3, 1, 2).flatten(2)
        return x[:, :, : self.input_shape[-1]].reshape(x.shape[0], *self.input_shape)

    def crop(self, x: Tensor, start: Tensor, count: int) -> Tensor:
        """(B, *shape) -> (B, ..., count * stride), the steps of `count` frames from number `start` (B,) on; NaN after the end."""
        at = start[:, None] * self.stride + torch.arange(count * self.stride, device=x.device)
        at = at.view(x.shape[0], *[1] * (x.ndim - 2), -1)
        inside = x.gather(-1, at.clamp(max=x.shape[-1] - 1).expand(*x.shape[:-1], -1))
        return inside.masked_fill(at >= x.shape[-1], math.nan)

    def likelihood(self) -> Likelihood:
        """How a prediction of the values of frames is judged, against `frame_values`."""
        return self.values.likelihood(self.frame_size)


def without_silence(x: Tensor, silence: Tensor) -> Tensor:
    """Spectrograms (B, F, T) with NaN for the last steps, as many as hold the values `silence` (F, 1) of no sound."""
    sound = ((x - silence).abs() > SILENT).any(dim=1)  # (B, T)
    until = sound.flip(1).int().cumsum(dim=1).flip(1) > 0  # whether there is sound at the step or after it
    return x.masked_fill(~until[:, None], math.nan)


def pool_frames(frames: Tensor, present: Tensor, pool: str) -> Tensor:
    """(B, N, D), and (B, N) bool -> (B, D), or (B, 2 D) of the mean and the maximum."""
    weight = present.to(frames.dtype)[:, :, None]
    if pool == "last":
        last = (present * torch.arange(1, present.shape[1] + 1, device=frames.device)).amax(dim=1)  # 0: none
        at = (last - 1).clamp(min=0)[:, None, None].expand(-1, 1, frames.shape[2])
        return (frames * weight).gather(1, at)[:, 0]
    parts = []
    if pool in ("mean", "both"):
        parts.append((frames * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))
    if pool in ("max", "both"):
        largest = frames.masked_fill(~present[:, :, None], -math.inf).amax(dim=1)
        parts.append(torch.where(present.any(dim=1, keepdim=True), largest, 0.0))
    return torch.cat(parts, dim=1)


def stride_of(stride: int | str, steps: int) -> int:
    """`stride`, or for `auto` the smallest power of 2 with at most MAX_FRAMES frames. RequestError for another value."""
    if stride == "auto":
        automatic = 1
        while -(-steps // automatic) > MAX_FRAMES:
            automatic *= 2
        return automatic
    if isinstance(stride, str) or stride < 1:
        raise RequestError(
            f"backbone.stride: expected a positive integer or auto, got {stride!r}", "backbone.stride=auto"
        )
    return stride


def require_odd(kernel: int) -> None:
    """RequestError for an even kernel: frames would not stay aligned."""
    if kernel % 2 == 0:
        raise RequestError(f"backbone.kernel: expected an odd integer, got {kernel}", f"backbone.kernel={kernel + 1}")
