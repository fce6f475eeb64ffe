"""Views of clips: raw (C, T, H, W) uint8, views (C, t, h, w) float32, normalized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.dataset import Dataset
from sslcli.nn.values import Continuous, Values
from sslcli.rng import Draw
from sslcli.views.grid import GridModality
from sslcli.views.images.geometry import Frame, HorizontalFlip
from sslcli.views.images.resample import crop_resize
from sslcli.views.op import Op, OpRandoms, constant, parts
from sslcli.views.preview.base import Preview
from sslcli.views.preview.film import Film
from sslcli.views.video.ops import OPS, PIXEL_OPS, ClipResize, FrameWindow


class FramesView:
    """One view: a window of frames, one region of all of them resized, then ops on pixels."""

    def __init__(self, ops: list[Op], shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]):
        rest = list(ops)
        self.window = rest.pop(0) if rest and isinstance(rest[0], FrameWindow) else None
        self.shape = shape if self.window is None else self.window.out_shape(shape)
        if rest and isinstance(rest[0], Frame):
            self.region = rest.pop(0)
        else:
            self.region = ClipResize()
            self.region.bind(self.shape)
        assert isinstance(self.region, Frame)
        self.shape = (*self.shape[:2], *self.region.out)
        self.raw_shape, self.ops = shape, rest
        self.mean, self.std = tuple(mean), tuple(std)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """(B, C, T, H, W) uint8 -> (B, *shape)."""
        assert raw.shape[1:] == self.raw_shape, (raw.shape, self.raw_shape)
        region_op = self.region
        assert isinstance(region_op, Frame)
        randoms = OpRandoms([*([self.window] if self.window else []), region_op, *self.ops], draw, raw.device)
        sides = [torch.full((len(raw),), float(n), dtype=torch.float64, device=draw.ids.device) for n in raw.shape[3:]]
        region = region_op.region(randoms.uniforms(region_op), *sides).to(raw.device)
        shift, factor = (
            constant(v, raw.device).view(-1, 1, 1, 1) for v in (self.mean, tuple(1 / s for s in self.std))
        )
        out = torch.empty(len(raw), *self.shape, device=raw.device)
        for part in parts(len(raw), math.prod(self.shape), raw.device):
            x = raw[part]
            if self.window is not None:
                x = randoms.run([self.window], x, part)
            x = crop_resize(x.flatten(1, 2), region.rows(part), region_op.out, region_op.interpolation)
            for op in self.ops:
                flat = isinstance(op, PIXEL_OPS) or isinstance(op, HorizontalFlip)
                x = x.unflatten(1, self.shape[:2]) if x.dim() == 4 and not flat else x
                x = x.flatten(1, 2) if x.dim() == 5 and flat else x
                x = randoms.run([op], x, part)
            out[part] = (x.view(len(x), *self.shape) - shift) * factor
        return out

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Stack clips that are read one at a time."""
        return torch.stack([torch.as_tensor(sample) for sample in samples])

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        return self.resident(frame, draw)


class FramesModality(GridModality):
    """Clips of frames."""

    noun = ("clip", "clips")
    ops = OPS
    unit = "pixels, 0..1"
    psnr = True
    raw_limit = 16  # places on each axis

    def view(self, ops: list[Op], dataset: Dataset) -> FramesView:
        assert isinstance(dataset.values, Continuous), dataset.values
        return FramesView(ops, dataset.shape, dataset.values.mean, dataset.values.std)

    def describe(self, shape: tuple[int, ...]) -> str:
        channels, frames, height, width = shape
        return f"clip of {frames} frames {channels}x{height}x{width}"

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (dataset.values.mean, dataset.values.std))
        return [Film(sample * std + mean) for sample in x.detach().float().cpu()]

    def upsample(self, importance: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Linear between the centers of the positions."""
        return F.interpolate(importance[:, None], size=shape[1:], mode="trilinear", align_corners=False)

    def trivial(self, x: Tensor, visible: Tensor, values: Values) -> dict[str, Tensor]:
        """Of each pixel: black, the last visible frame before (or the first one after it), and the mean of the visible frames."""
        count = visible.sum(dim=2, keepdim=True)
        mean = torch.where(visible, x, 0.0).sum(dim=2, keepdim=True) / count.clamp(min=1)
        frames = torch.arange(x.shape[2], device=x.device).view(-1, 1, 1)
        before = torch.where(visible, frames, -1).cummax(dim=2).values
        first = visible.to(torch.uint8).argmax(dim=2, keepdim=True)
        last = x.gather(2, torch.where(before < 0, first, before).expand_as(x))
        assert isinstance(values, Continuous)
        black = torch.tensor([-m / s for m, s in zip(values.mean, values.std, strict=True)], device=x.device)
        black = black.view(-1, 1, 1, 1).expand_as(x)
        return {
            "black": black,
            "last": torch.where(count > 0, last, black),
            "average": torch.where(count > 0, mean, black).expand_as(x),
        }

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        """Squared differences of pixels in 0..1; `frame_error` is their sum over a frame, the customary error of predictions."""
        std = torch.tensor(values.std, device=target.device).view(-1, 1, 1, 1)
        squared = ((guess - target) * std).square()
        channels, _, height, width = target.shape[1:]
        return {"mse": squared, "frame_error": squared * (channels * height * width)}
