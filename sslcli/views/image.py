"""Image views: the ops (images/geometry.py, images/color.py), and the pipeline from uint8 images.

The arithmetic is torchvision's (v2, float tensors) unless an op says otherwise; the tests compare each op with it. Sums over
pixels are exact in integers and transcendental functions are in float64, so that a sample's view has the same bits in any batch,
with any number of threads.

With other than 3 channels, brightness, contrast and all geometric ops still apply; saturation, hue and grayscale are undefined
there and are skipped, which the pipeline's notes report.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor, Source
from sslcli.data.images.crop import crop_and_resize, shrink, to_array
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.user_files.images import read_image_files
from sslcli.data.user_files.samples import UserFiles
from sslcli.nn.values import Continuous, Values
from sslcli.rng import Draw
from sslcli.views.copies import NearCopies
from sslcli.views.corruption import Corruption, Generators
from sslcli.views.grid import GridModality
from sslcli.views.images import native, triton_views
from sslcli.views.images.color import ColorJitter, GaussianBlur, Grayscale, Noise, RandomIntensity, Solarize
from sslcli.views.images.copies import LEAST_SIDE, ImageCopies
from sslcli.views.images.corruptions import CORRUPTIONS, blur
from sslcli.views.images.defects import defects
from sslcli.views.images.geometry import (
    Frame,
    HorizontalFlip,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from sslcli.views.images.resample import FILTERS, Region, crop_resize
from sslcli.views.modality import RawFeatures
from sslcli.views.op import (
    Op,
    OpRandoms,
    constant,
    parts,
    per_channel,
)
from sslcli.views.preview.base import Preview
from sslcli.views.preview.picture import Picture

OPS: dict[str, type[Op]] = {
    op.name: op
    for op in (
        Resize,
        RandomResizedCrop,
        RandomCrop,
        HorizontalFlip,
        VerticalFlip,
        ColorJitter,
        Grayscale,
        GaussianBlur,
        Solarize,
        RandomAffine,
        RandomIntensity,
        Noise,
    )
}


SHOWN, LONGEST = 256, 1024  # pixels of the sides of an image that people look at


@dataclass
class BatchTransform:
    """The transformation of a batch: resample `region` (None: the whole image, unchanged), mirror where `flip` (B,) bool, then
    apply `ops`."""

    randoms: OpRandoms
    ops: Sequence[Op]
    region: Region | None = None
    flip: Tensor | None = None


class ImageView:
    """One view: raw images (B, C, H, W) uint8, or a list of images of any size -> (B, C, h, w) float32, normalized.

    `ops` are from `make_ops`; unless the first is a `Frame`, the whole image at full size is used."""

    def __init__(self, ops: list[Op], shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]):
        if ops and isinstance(ops[0], Frame):
            self.frame_op, self.ops = ops[0], ops[1:]
        else:
            self.frame_op, self.ops = Resize(), list(ops)
            self.frame_op.bind(shape)
        self.channels = shape[0]
        self.shape = (shape[0], *self.frame_op.out)
        self.mean, self.std = per_channel(mean, shape[0]), per_channel(std, shape[0])
        self.shift, self.factor = (0 - self.mean).view(-1, 1, 1), (1 / self.std).view(-1, 1, 1)

    def normalize(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(x - mean) / std per channel, of values in 0..1."""
        # adding +0 (a mean of 0) turns -0 into +0: the sign of zero may depend on the order of a sum
        shift, factor = (
            constant(tuple(t.flatten().tolist()), x.device).view(-1, 1, 1) for t in (self.shift, self.factor)
        )
        return torch.add(x, shift, out=out).mul_(factor)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) uint8 -> (B, *shape)."""
        assert raw.ndim == 4, raw.shape
        assert raw.shape[1] == self.channels, (raw.shape, self.channels)
        return self._apply(self.transform(raw, draw), raw)

    def frame(self, images: Sequence[np.ndarray], draw: Draw) -> Tensor:
        """Images (H, W, C) uint8 of any sizes -> (B, C, h, w) uint8: only crop and resize."""
        op = self.frame_op
        heights, widths, _ = zip(*(image.shape for image in images), strict=True)
        sizes = [torch.tensor(side, dtype=torch.float64, device=draw.ids.device) for side in (heights, widths)]
        region = op.region(OpRandoms([op], draw, draw.ids.device).uniforms(op), *sizes)
        corners = [region.left, region.top, region.left + region.width, region.top + region.height]
        out = torch.empty(len(images), *self.shape, dtype=torch.uint8)
        for i, (image, box) in enumerate(zip(images, torch.stack(corners, 1).long().tolist(), strict=True)):
            assert image.shape[2] == self.channels, (image.shape, self.channels)
            out[i] = crop_and_resize(image, box, op.out, op.interpolation)
        return out

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """(B, C, h, w) uint8 from `frame` -> (B, *shape): apply all other ops."""
        assert frame.shape[1:] == self.shape, (frame.shape, self.shape)
        return self._apply(BatchTransform(OpRandoms(self.ops, draw, frame.device), self.ops), frame)

    def transform(self, raw: Tensor, draw: Draw) -> BatchTransform:
        """The random transformation of a batch (B, C, H, W) uint8."""
        n, _, *size = raw.shape
        frame, ops = self.frame_op, self.ops
        randoms = OpRandoms([frame, *ops], draw, raw.device)
        if type(frame) is Resize and list(frame.out) == size and frame.crop == 1:
            return BatchTransform(randoms, ops)
        sides = [torch.full((n,), float(side), dtype=torch.float64, device=draw.ids.device) for side in size]
        region = frame.region(randoms.uniforms(frame), *sides).to(raw.device)
        if not (ops and isinstance(ops[0], HorizontalFlip)):
            return BatchTransform(randoms, ops, region)
        flip = randoms.mask(ops[0])  # mirrored by the resampling at no cost
        if flip is None:  # p = 1
            flip = torch.ones(n, dtype=torch.bool, device=raw.device)
        return BatchTransform(randoms, ops[1:], region, flip.to(raw.device))

    def _apply(self, transform: BatchTransform, raw: Tensor) -> Tensor:
        assert raw.dtype == torch.uint8, raw.dtype
        if raw.device.type == "cuda" and triton_views.usable(raw.device):
            return self.launched(transform, raw)
        out = self.compiled(transform, raw) if raw.device.type == "cpu" and native.usable() else None
        return self.tensors(transform, raw) if out is None else out

    def tensors(self, transform: BatchTransform, raw: Tensor) -> Tensor:
        """Apply a transformation with tensor code, on any device."""
        out = torch.empty(len(raw), *self.shape, device=raw.device)
        for part in parts(len(raw), math.prod(self.shape), raw.device):
            if transform.region is None:
                x = raw[part].to(torch.float32).mul_(1 / 255)
            else:
                flip = None if transform.flip is None else transform.flip[part]
                x = crop_resize(
                    raw[part], transform.region.rows(part), self.frame_op.out, self.frame_op.interpolation, flip
                )
            self.normalize(transform.randoms.run(transform.ops, x, part), out=out[part])
        return out

    def compiled(self, transform: BatchTransform, raw: Tensor, code: ctypes.CDLL | None = None) -> Tensor | None:
        """Apply it with compiled code on a CPU, with the same bits. None if an op has no compiled version."""
        steps: list[native.Step] = []
        for op in transform.ops:
            params, mask = transform.randoms.params(op)
            compiled = op.native(params)
            if compiled is None:
                return None
            steps += [(name, values, mask) for name, values in compiled]
        out = torch.empty(len(raw), *self.shape)
        return native.run(raw, out, steps, self.shift, self.factor, self._resampling(transform), code)

    def launched(
        self, transform: BatchTransform, raw: Tensor, dtype: torch.dtype = torch.float32, kernels: Any = None
    ) -> Tensor:
        """Apply it by Triton kernels on a CUDA device, with the same bits, rounded to `dtype` at the end. An op without a kernel
        runs as tensor code between two launches."""
        items: list[native.Step | triton_views.TensorCode] = []
        for op in transform.ops:
            params, mask = transform.randoms.params(op)
            compiled = op.native(params)
            if compiled is None:
                items.append(functools.partial(transform.randoms.run, [op]))
            else:
                items += [(name, values, mask) for name, values in compiled]
        shift, factor = (constant(tuple(t.flatten().tolist()), raw.device) for t in (self.shift, self.factor))
        out = torch.empty(len(raw), *self.shape, dtype=dtype, device=raw.device)
        return triton_views.run(raw, out, items, shift, factor, self._resampling(transform), kernels)

    def _resampling(self, transform: BatchTransform) -> native.Resampling | None:
        if transform.region is None:
            return None
        radius = int(FILTERS[self.frame_op.interpolation])
        return native.Resampling(torch.stack(list(transform.region), 1), radius, transform.flip)


class ImageModality(GridModality):
    """Images: raw (C, H, W) uint8, views (C, h, w) float32."""

    noun = ("image", "images")
    ops = OPS
    channels_last = True
    native = True
    attacks = True
    unit = "pixels, 0..1"
    psnr = True
    inserted = "into a blurred copy"
    raw_limit = 32  # pixels on each axis

    def view(self, ops: list[Op], dataset: Dataset) -> ImageView:
        assert isinstance(dataset.values, Continuous), dataset.values
        return ImageView(ops, dataset.shape, dataset.values.mean, dataset.values.std)

    def decoded(self, samples: Sequence[Any]) -> list[np.ndarray]:
        """PIL images, or arrays (H, W, C) uint8 -> arrays (H, W, C) uint8."""
        return [to_array(image) for image in samples]

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, ImagePreprocessor), preprocessor
        return read_image_files(paths, preprocessor, notes)

    def detail(self, source: Source, dataset: Dataset) -> Mapping[str, Any]:
        """Square images of files, or stored larger than the backbone sees them, have up to `SHOWN` pixels."""
        stored = source.resident
        side = SHOWN if stored is None else min(SHOWN, *(side or SHOWN for side in stored.sample_shape[1:]))
        _, height, width = dataset.shape
        return {"resize": {"size": side}} if height == width < side else {}

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        mean, std = (per_channel(v, x.shape[1]).view(-1, 1, 1) for v in (dataset.values.mean, dataset.values.std))
        return [Picture(sample * std + mean) for sample in x.detach().float().cpu()]

    def uncrop(self, shown: list[Preview], source: Source, ids: Tensor, dataset: Dataset) -> list[Preview]:
        """Whole images, where these are wider or higher than the views."""
        aspect = dataset.shape[2] / dataset.shape[1]
        found = [shrink(source.read(i), aspect, SHOWN, LONGEST) for i in ids.tolist()]
        return [
            p if pixels is None or not isinstance(p, Picture) else replace(p, pixels=pixels)
            for p, pixels in zip(shown, found, strict=True)
        ]

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies | None:
        return ImageCopies(dataset.shape) if min(dataset.shape[1:]) >= LEAST_SIDE else None

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        return defects(self.to_natural(x, dataset.values))

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        def normalized(corruption: Corruption) -> Corruption:
            def corrupt(x: Tensor, severity: int, generators: Generators) -> Tensor:
                pixels = corruption(self.to_natural(x, dataset.values), severity, generators)
                return self.from_natural(pixels, dataset.values)

            return corrupt

        return {name: normalized(corruption) for name, corruption in CORRUPTIONS.items()}

    def to_natural(self, x: Tensor, values: Values) -> Tensor:
        """Pixels in 0..1."""
        mean, std = _statistics(x, values)
        return (x * std + mean).clamp(0, 1)

    def from_natural(self, x: Tensor, values: Values) -> Tensor:
        mean, std = _statistics(x, values)
        return (x - mean) / std

    def insertion_base(self, x: Tensor, values: Values) -> Tensor:
        """Blurred with a sigma of an eighth of the longer side."""
        return blur(x, max(x.shape[2:]) / 8)

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        _, std = _statistics(target, values)
        return {"mse": ((guess - target) * std).square()}


def _statistics(x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (values.mean, values.std))
    return mean, std
