"""Ops on waves (B, n) float32, full scale 1, before their spectrogram is made, and the window that cuts them out of
clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.dataset import Dataset
from sslcli.rng import Draw
from sslcli.views.op import Op, Params, between, interval, number, output_size


class AudioOp(Op):
    """An op on waves, or on normalized log-mel spectrograms (B, 1, F, T)."""

    domain: ClassVar[Literal["window", "wave", "mel"]]
    preprocessor: AudioPreprocessor

    def attach(self, dataset: Dataset, preprocessor: AudioPreprocessor) -> None:
        """Set the data set whose clips are transformed."""
        self.preprocessor = preprocessor


class Window(AudioOp):
    """A random window of the clip. A clip that is shorter than a view is placed at random, with silence around it.

    `size`: the frames of the view; null is T, a fraction a part of T."""

    name = "window"
    domain = "window"
    first = True

    def __init__(self, size: float | int | None = None):
        self.size = size
        self.frames = 0

    def bind(self, shape: tuple[int, ...]) -> str | None:
        self.frames = output_size("size", self.size, shape[-1])
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.frames)

    def uniforms(self) -> dict[str, int]:
        return {"start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"start": u["start"][:, 0].double()}

    def start(self, lengths: Tensor, samples: int, params: Params) -> Tensor:
        """The first sample (B,) int64 of a view of `samples` samples; negative for silence before the clip."""
        room = (lengths - samples).double()
        steps = (params["start"] * (room.abs() + 1)).floor().long()
        return torch.where(room >= 0, steps, -steps)


class Gain(AudioOp):
    """Amplify by a factor of `decibels`, a range."""

    name = "gain"
    domain = "wave"

    def __init__(self, decibels: float | Sequence[float] = (-6.0, 6.0), p: float = 1.0):
        self.decibels = interval("decibels", decibels, -80.0, 80.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"decibels": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"factor": 10 ** (between(u["decibels"][:, 0].double(), *self.decibels) / 20)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x * params["factor"].to(x.dtype)[:, None]


class Shift(AudioOp):
    """Shift in time by at most a fraction `most` of the view, earlier or later; silence comes in at the other end."""

    name = "shift"
    domain = "wave"

    def __init__(self, most: float = 0.1, p: float = 1.0):
        self.most = number("most", most, 0.0, 1.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"by": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"by": between(u["by"][:, 0].double(), -self.most, self.most)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        by = (params["by"] * x.shape[1]).round().long()
        at = torch.arange(x.shape[1], device=x.device) - by[:, None]
        inside = (at >= 0) & (at < x.shape[1])
        return x.gather(1, at.clamp(0, x.shape[1] - 1)) * inside


class Noise(AudioOp):
    """Add white noise, `snr` decibels (a range) weaker than the view. Nothing is added to silence."""

    name = "noise"
    domain = "wave"

    def __init__(self, snr: float | Sequence[float] = (10.0, 40.0), p: float = 1.0):
        self.snr = interval("snr", snr, -40.0, 120.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"snr": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"factor": 10 ** (between(u["snr"][:, 0].double(), *self.snr) / -20)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        level = x.square().mean(dim=1).sqrt() * params["factor"].to(x.dtype)
        return x + draw.normal("noise/value", x.shape[1]).to(x.device) * level[:, None]
