"""Views of images: the ops there are (geometry.py, colour.py), and the pipeline from uint8.

The arithmetic is torchvision's (v2, float tensors) unless an op says otherwise; the tests hold each op against it.
Sums over pixels are taken over whole numbers and transcendental functions in float64, so that a sample's view has the
same bits in any batch, with any number of threads.

Rule for other than 3 channels: brightness, contrast and everything geometric apply to any number of channels;
saturation, hue and grayscale have no meaning there and are left out, and the pipeline's notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcli.data.cut import cut
from sslcli.rng import Draw
from sslcli.views.colour import ColorJitter, GaussianBlur, Grayscale, Noise, RandomIntensity, Solarize
from sslcli.views.geometry import (
    Frame,
    HorizontalFlip,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from sslcli.views.op import (
    Numbers,
    Op,
    parts,
    per_channel,
)
from sslcli.views.resample import Region, crop_resize

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


class ImageView:
    """One view: from raw images (B, C, H, W) uint8, or from a list of pictures of any size, to (B, C, h, w) float32,
    normalised. `ops` come from `make_ops`; if the first is no `Frame`, the whole image at full size is."""

    def __init__(self, ops: list[Op], shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]):
        if not ops or not isinstance(ops[0], Frame):
            whole = Resize()
            whole.bind(shape)
            ops = [whole, *ops]
        self.frame_op: Frame = ops[0]  # type: ignore[assignment]
        self.ops = ops[1:]
        self.channels = shape[0]
        self.shape = (shape[0], *self.frame_op.out)
        self.mean, self.std = per_channel(mean, shape[0]), per_channel(std, shape[0])
        self.shift, self.factor = (0 - self.mean).view(-1, 1, 1), (1 / self.std).view(-1, 1, 1)
        self.fused = bool(self.ops) and isinstance(self.ops[0], HorizontalFlip)

    def normalise(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """0..1 -> zero mean and unit deviation, in the channels' own terms."""
        # adding +0 (a mean of 0) makes +0 of a -0, whose sign a sum in another order need not have
        return torch.add(x, self.shift.to(x.device), out=out).mul_(self.factor.to(x.device))

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`, for pictures."""
        return x * self.std.view(-1, 1, 1).to(x.device) + self.mean.view(-1, 1, 1).to(x.device)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) uint8 -> (B, *shape)."""
        assert raw.dtype == torch.uint8, raw.dtype
        assert raw.ndim == 4, raw.shape
        assert raw.shape[1] == self.channels, (raw.shape, self.channels)
        n, _, height, width = raw.shape
        frame, ops = self.frame_op, self.ops
        numbers = Numbers([frame, *ops], draw, raw.device)
        sizes = [torch.full((n,), float(side), dtype=torch.float64, device=draw.ids.device) for side in (height, width)]
        whole = type(frame) is Resize and frame.out == (height, width) and frame.crop == 1
        region = None if whole else frame.region(numbers.of(frame), *sizes)
        flip, rest = (numbers.on(ops[0]), ops[1:]) if self.fused and not whole else (None, ops)
        if self.fused and not whole and flip is None:  # p = 1: all of them
            flip = torch.ones(n, dtype=torch.bool, device=draw.ids.device)
        out = torch.empty(n, *self.shape, device=raw.device)
        for part in parts(n, math.prod(self.shape), raw.device):
            if region is None:
                x = raw[part].to(torch.float32).mul_(1 / 255)
            else:
                here = Region(*(v[part].to(raw.device) for v in (region.top, region.left, region.height, region.width)))
                mirror = None if flip is None else flip[part].to(raw.device)
                x = crop_resize(raw[part], here, frame.out, frame.interpolation, mirror)
            self.normalise(numbers.run(rest, x, part), out=out[part])
        return out

    def frame(self, images: Sequence[np.ndarray], draw: Draw) -> Tensor:
        """Pictures (H, W, C) uint8 of any sizes -> (B, C, h, w) uint8: the region alone, cut out and resized."""
        op = self.frame_op
        heights, widths, _ = zip(*(image.shape for image in images), strict=True)
        sizes = [torch.tensor(side, dtype=torch.float64, device=draw.ids.device) for side in (heights, widths)]
        region = op.region(Numbers([op], draw, draw.ids.device).of(op), *sizes)
        corners = [region.left, region.top, region.left + region.width, region.top + region.height]
        out = torch.empty(len(images), *self.shape, dtype=torch.uint8)
        for i, (image, box) in enumerate(zip(images, torch.stack(corners, 1).long().tolist(), strict=True)):
            assert image.shape[2] == self.channels, (image.shape, self.channels)
            out[i] = cut(image, box, op.out, op.interpolation)
        return out

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """(B, C, h, w) uint8 from `frame` -> (B, *shape): all other ops."""
        assert frame.dtype == torch.uint8, frame.dtype
        assert frame.shape[1:] == self.shape, (frame.shape, self.shape)
        numbers = Numbers(self.ops, draw, frame.device)
        out = torch.empty(frame.shape, dtype=torch.float32, device=frame.device)
        for part in parts(len(frame), math.prod(self.shape), frame.device):
            x = frame[part].to(torch.float32).mul_(1 / 255)
            self.normalise(numbers.run(self.ops, x, part), out=out[part])
        return out
