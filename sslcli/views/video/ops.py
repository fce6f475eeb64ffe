"""Ops on clips: those of images, with one crop, mirror or change of color for all frames of a clip, and a window of frames.

Pixel ops see a clip (C, T, H, W) as an image of C x T channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.rng import Draw
from sslcli.views.images.color import ColorJitter, GaussianBlur
from sslcli.views.images.geometry import HorizontalFlip, RandomResizedCrop, Resize, VerticalFlip
from sslcli.views.op import Op, Params, between, interval, output_size


class FrameWindow(Op):
    """A random window of `length` of the frames, a fraction or a range of fractions, resampled to `size` frames by taking the
    nearest ones: another speed. `size`: null is T, a fraction a part of T."""

    name = "frame_window"

    def __init__(self, length: float | Sequence[float] = (0.5, 1.0), size: float | int | None = None):
        self.length = interval("length", length, 1e-6, 1.0)
        self.size = size
        self.frames = self.out = 0

    def bind(self, shape: tuple[int, ...]) -> str | None:
        self.frames, self.out = shape[1], min(shape[1], output_size("size", self.size, shape[1]))
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], self.out, *shape[2:])

    def uniforms(self) -> dict[str, int]:
        return {"length": 1, "start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        length = between(u["length"][:, 0].double(), *self.length) * self.frames
        length = length.round_().clamp_(min=1)
        start = (u["start"][:, 0].double() * (self.frames - length + 1)).floor_()
        steps = (torch.arange(self.out, dtype=torch.float64, device=start.device) + 0.5) / self.out
        return {"frames": (start[:, None] + (steps * length[:, None]).floor_()).long()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        at = params["frames"].to(x.device)[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:])
        return x.gather(2, at)


class Reverse(Op):
    """Play backwards."""

    name = "reverse"

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x.flip(2)


class _OfPixels:
    """An op of images, for the frames of a clip at once."""

    def bind(self, shape: tuple[int, ...]) -> str | None:
        found: str | None = super().bind((shape[0] * shape[1], *shape[2:]))  # type: ignore[misc]
        return found

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        out = super().out_shape((shape[0] * shape[1], *shape[2:]))  # type: ignore[misc]
        return (*shape[:2], *out[1:])


class ClipCrop(_OfPixels, RandomResizedCrop):
    __doc__ = RandomResizedCrop.__doc__


class ClipResize(_OfPixels, Resize):
    __doc__ = Resize.__doc__


class ClipBlur(_OfPixels, GaussianBlur):
    __doc__ = GaussianBlur.__doc__


class ClipJitter(_OfPixels, ColorJitter):
    """Random brightness and contrast, the same for all frames: a factor in [max(0, 1 - v), 1 + v]."""

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, p: float = 1.0):
        super().__init__(brightness, contrast, p=p)


OPS: dict[str, type[Op]] = {
    op.name: op
    for op in (FrameWindow, ClipCrop, ClipResize, HorizontalFlip, VerticalFlip, ClipJitter, ClipBlur, Reverse)
}
PIXEL_OPS = (ClipJitter, ClipBlur)  # whose `apply` takes images; the others work on the last axes
