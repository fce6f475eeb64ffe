"""Views of clips: raw (C, T, H, W) uint8, views (C, t, h, w) float32, normalized."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.user_files.frames import read_clip_files
from sslcli.data.user_files.samples import UserFiles
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.nn.values import Continuous, Values
from sslcli.rng import Draw
from sslcli.views.corruption import Corruption, Generators
from sslcli.views.grid import GridModality
from sslcli.views.images.geometry import Frame
from sslcli.views.images.resample import crop_resize
from sslcli.views.op import Op, OpRandoms, constant, parts
from sslcli.views.preview.base import Preview
from sslcli.views.preview.film import Film
from sslcli.views.video.corruptions import CORRUPTIONS
from sslcli.views.video.ops import OPS, PIXEL_OPS, ClipResize


class FramesView:
    """One view: a region of all frames, resized, then the other ops. `ops` are from `make_ops`; unless the first is a `Frame`,
    whole frames are used."""

    def __init__(self, ops: list[Op], shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]):
        if ops and isinstance(ops[0], Frame):
            self.region: Frame = ops[0]
            self.ops = ops[1:]
        else:
            self.region, self.ops = ClipResize(), list(ops)
            self.region.bind(shape)
        self.raw_shape = shape
        self.shape: tuple[int, ...] = (*shape[:2], *self.region.out)
        for op in self.ops:
            self.shape = op.out_shape(self.shape)
        self.mean, self.std = tuple(mean), tuple(std)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """(B, C, T, H, W) uint8 -> (B, *shape)."""
        assert raw.shape[1:] == self.raw_shape, (raw.shape, self.raw_shape)
        randoms = OpRandoms([self.region, *self.ops], draw, raw.device)
        sides = [torch.full((len(raw),), float(n), dtype=torch.float64, device=draw.ids.device) for n in raw.shape[3:]]
        region = self.region.region(randoms.uniforms(self.region), *sides).to(raw.device)
        shift, factor = (constant(v, raw.device).view(-1, 1, 1, 1) for v in (self.mean, tuple(1 / s for s in self.std)))
        out = torch.empty(len(raw), *self.shape, device=raw.device)
        for part in parts(len(raw), math.prod(self.raw_shape), raw.device):
            x = crop_resize(raw[part].flatten(1, 2), region.rows(part), self.region.out, self.region.interpolation)
            x = x.unflatten(1, self.raw_shape[:2])
            for op in self.ops:
                channels = x.shape[1:3]
                x = x.flatten(1, 2) if isinstance(op, PIXEL_OPS) else x
                x = randoms.run([op], x, part)
                x = x.unflatten(1, channels) if isinstance(op, PIXEL_OPS) else x
            out[part] = (x - shift) * factor
        return out

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Stack clips that are read one at a time."""
        return torch.stack([torch.as_tensor(sample) for sample in samples])

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        return self.resident(frame, draw)


class FramesModality(GridModality):
    """Clips of frames."""

    noun = ("clip", "clips")
    batch_size = 32  # a clip has as many values as ten images or more
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

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, FramesPreprocessor), preprocessor
        return read_clip_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (dataset.values.mean, dataset.values.std))
        return [Film(sample * std + mean) for sample in x.detach().float().cpu()]

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (dataset.values.mean, dataset.values.std))

        def normalized(corruption: Corruption) -> Corruption:
            def corrupt(x: Tensor, severity: int, generators: Generators) -> Tensor:
                return (corruption((x * std + mean).clamp(0, 1), severity, generators) - mean) / std

            return corrupt

        return {name: normalized(corruption) for name, corruption in CORRUPTIONS.items()}

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
