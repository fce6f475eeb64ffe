"""Views of images: ops on (B, C, H, W) float32 in 0..1, and the pipeline from uint8.

The arithmetic is torchvision's (v2, float tensors) unless an op says otherwise; the tests hold each op against it.
Sums over pixels are taken over whole numbers and transcendental functions in float64, so that a sample's view has the
same bits in any batch, with any number of threads.

Rule for other than 3 channels: brightness, contrast and everything geometric apply to any number of channels;
saturation, hue and grayscale have no meaning there and are left out, and the pipeline's notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.rng import Draw
from sslcli.views.op import (
    BadValue,
    Numbers,
    Op,
    Params,
    between,
    choice,
    interval,
    number,
    output_size,
    parts,
    per_channel,
    with_noise,
)
from sslcli.views.resample import FILTERS, Region, blur, crop_resize, gaussian

if TYPE_CHECKING:
    from PIL import Image

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
TRIES = 10  # torchvision's number of tries for a region that fits


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1) float32."""
    return values.to(torch.float32).view(-1, 1, 1, 1)


def luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): brightness as the eye weighs it."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (r * LUMA[0]).add_(g * LUMA[1]).add_(b * LUMA[2])


def mean_of(x: Tensor) -> Tensor:
    """(B, C, H, W) in 0..1 -> (B, 1, 1, 1): the mean over all pixels, each taken to 2**-16, so that any order of
    summing gives the same bits."""
    whole = (x * 65536.0).round_().flatten(1)
    return _each(whole.sum(1, dtype=torch.float64).div_(65536.0 * whole.shape[1]))


class Frame(Op):
    """An op that picks a region of an image of any size and resizes it to one size. Only the first op may be one."""

    first = True

    def __init__(self, size: float | int | None, interpolation: str):
        self.size = size
        self.interpolation = choice("interpolation", interpolation, list(FILTERS))
        self.out: tuple[int, int] = (0, 0)

    def bind(self, shape: tuple[int, ...]) -> str | None:
        self.out = (output_size("size", self.size, shape[1]), output_size("size", self.size, shape[2]))
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *self.out)

    def region(self, u: dict[str, Tensor], height: Tensor, width: Tensor) -> Region:
        """The region of each sample; `height`, `width` (B,) float64: the samples' own sizes."""
        raise NotImplementedError


class Resize(Frame):
    """The whole image at one size. `fit=crop` takes the largest centred part that has the right shape, `crop` of it
    (0.875 is the ImageNet habit of 224 out of 256); `fit=stretch` takes all of it and bends it."""

    name = "resize"

    def __init__(
        self, size: float | int | None = None, fit: str = "crop", crop: float = 1.0, interpolation: str = "bilinear"
    ):
        super().__init__(size, interpolation)
        self.fit = choice("fit", fit, ["crop", "stretch"])
        self.crop = number("crop", crop, 0.01, 1.0)

    def region(self, u: dict[str, Tensor], height: Tensor, width: Tensor) -> Region:
        if self.fit == "stretch":
            h, w = height, width
        else:
            scale = torch.minimum(height / self.out[0], width / self.out[1]) * self.crop
            h = (scale * self.out[0]).round_().clamp_(min=1)
            w = (scale * self.out[1]).round_().clamp_(min=1)
        return Region(((height - h) / 2).floor_(), ((width - w) / 2).floor_(), h, w)


class RandomResizedCrop(Frame):
    """A random region, resized: area `scale` of the image, side ratio `ratio` (log-uniform). torchvision's
    distribution: ten tries for a region that fits, then the largest centred one whose ratio is allowed."""

    name = "random_resized_crop"

    def __init__(
        self,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (0.75, 4 / 3),
        size: float | int | None = None,
        interpolation: str = "bilinear",
    ):
        super().__init__(size, interpolation)
        self.scale = interval("scale", scale, 1e-6, 1.0)
        self.ratio = interval("ratio", ratio, 1e-3, 1e3)

    def uniforms(self) -> dict[str, int]:
        return {"area": TRIES, "ratio": TRIES, "top": 1, "left": 1}

    def region(self, u: dict[str, Tensor], height: Tensor, width: Tensor) -> Region:
        full_h, full_w = height[:, None], width[:, None]
        area = between(u["area"].double(), *self.scale) * full_h * full_w  # (B, tries)
        ratio = between(u["ratio"].double(), math.log(self.ratio[0]), math.log(self.ratio[1])).exp_()
        w, h = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()
        fits = (w > 0) & (w <= full_w) & (h > 0) & (h <= full_h)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        w, h, found = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0], fits.any(1)
        whole = width / height
        narrow, wide = whole < self.ratio[0], whole > self.ratio[1]
        h = torch.where(found, h, torch.where(narrow, (width / self.ratio[0]).round_(), height))
        w = torch.where(found, w, torch.where(wide, (height * self.ratio[1]).round_(), width))
        top = torch.where(found, (u["top"][:, 0].double() * (height - h + 1)).floor_(), ((height - h) / 2).floor_())
        left = torch.where(found, (u["left"][:, 0].double() * (width - w + 1)).floor_(), ((width - w) / 2).floor_())
        return Region(top, left, h, w)


class HorizontalFlip(Op):
    """Mirrors left and right."""

    name = "horizontal_flip"

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x.flip(-1)


class VerticalFlip(Op):
    """Mirrors up and down (satellite and microscope pictures)."""

    name = "vertical_flip"

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x.flip(-2)


class RandomCrop(Op):
    """Moves the picture by whole pixels: `padding` pixels are put around it (`mode` zeros or reflect), and a part of
    the old size is taken out. A `padding` below 1 is a part of the side."""

    name = "random_crop"

    def __init__(self, padding: float = 0.125, mode: str = "zeros"):
        self.padding = number("padding", padding, 0.0)
        self.mode = choice("mode", mode, ["zeros", "reflect"])
        self.by = (0, 0)

    def bind(self, shape: tuple[int, ...]) -> str | None:
        relative = self.padding < 1
        self.by = tuple(round(self.padding * side) if relative else round(self.padding) for side in shape[1:])  # type: ignore[assignment]
        if self.mode == "reflect" and any(b >= side for b, side in zip(self.by, shape[1:], strict=True)):
            raise BadValue("padding", f"below the side of the picture, {min(shape[1:])}")
        return None

    def uniforms(self) -> dict[str, int]:
        return {"top": 1, "left": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {
            key: (u[key][:, 0].double() * (2 * by + 1)).floor_().long()
            for key, by in zip(("top", "left"), self.by, strict=True)
        }

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        (n, c, height, width), (by, bx) = x.shape, self.by
        padded = F.pad(x, (bx, bx, by, by), mode="reflect" if self.mode == "reflect" else "constant")
        rows = params["top"][:, None] + torch.arange(height, device=x.device)
        columns = params["left"][:, None] + torch.arange(width, device=x.device)
        padded = padded.gather(2, rows[:, None, :, None].expand(n, c, height, padded.shape[3]))
        return padded.gather(3, columns[:, None, None, :].expand(n, c, height, width))


def jitter_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W) times (B,), within 0..1."""
    return (x * _each(factor)).clamp_(0, 1)


def jitter_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the mean brightness of the picture. Not 3 channels: the mean of all of them."""
    factor = _each(factor)
    return (x * factor).add_(mean_of(luma(x) if x.shape[1] == 3 else x) * (1 - factor)).clamp_(0, 1)


def jitter_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards each pixel's own grey. 3 channels."""
    factor = _each(factor)
    return (x * factor).add_(luma(x).mul_(1 - factor)).clamp_(0, 1)


def jitter_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turns the colour circle by `turn` (B,) of a whole turn, in HSV. 3 channels."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    high, low = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    range_ = high - low
    sixth = (range_ * 6).masked_fill_(range_ == 0, 1.0)
    # where red is highest the angle (g - b) / range, where green (b - r) / range + 2, else (r - g) / range + 4, in
    # sixths
    red = high == r
    green = (high == g).logical_and_(~red)
    hue = torch.where(red, g - b, torch.where(green, b - r, r - g)).div_(sixth)
    hue.add_(torch.where(red, 0.0, torch.where(green, 1 / 3, 2 / 3)))
    hue.add_(_each(turn + 1))  # a whole turn changes nothing and keeps what follows positive
    out = torch.empty_like(x)
    # Over the circle red is high for a sixth, falls for one, is low for two, rises for one, is high for one; green
    # and blue are the same a third and two thirds later.
    for channel, later in enumerate((0.0, 2 / 3, 1 / 3)):
        wave = (hue + later).frac_().mul_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.add(wave.mul_(range_), low, out=out[:, channel : channel + 1])
    return out


class ColorJitter(Op):
    """Brightness, contrast, saturation and hue by random factors, each clamped to 0..1, as in torchvision. The order
    is always that one (torchvision draws it for each call): the same work for the whole batch, and no difference to a
    feature is known.

    `brightness`, `contrast`, `saturation`: a factor within [max(0, 1 - v), 1 + v]; `hue`: a turn within [-v, v], v <=
    0.5.
    """

    name = "color_jitter"

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0, p: float = 1.0
    ):
        self.brightness = number("brightness", brightness, 0.0)
        self.contrast = number("contrast", contrast, 0.0)
        self.saturation = number("saturation", saturation, 0.0)
        self.hue = number("hue", hue, 0.0, 0.5)
        self.p = p

    def bind(self, shape: tuple[int, ...]) -> str | None:
        if shape[0] == 3 or not (self.saturation or self.hue):
            return None
        self.saturation = self.hue = 0.0
        if not (self.brightness or self.contrast):
            self.p = 0.0
        return f"color_jitter: saturation and hue are left out, they need 3 channels and the images have {shape[0]}"

    def uniforms(self) -> dict[str, int]:
        return {k: 1 for k in ("brightness", "contrast", "saturation", "hue") if getattr(self, k)}

    def params(self, u: dict[str, Tensor]) -> Params:
        made = {k: between(u[k][:, 0], max(0.0, 1 - getattr(self, k)), 1 + getattr(self, k)) for k in u if k != "hue"}
        if "hue" in u:
            made["hue"] = between(u["hue"][:, 0], -self.hue, self.hue)
        return made

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        for key, step in (
            ("brightness", jitter_brightness),
            ("contrast", jitter_contrast),
            ("saturation", jitter_saturation),
            ("hue", jitter_hue),
        ):
            if key in params:
                x = step(x, params[key])
        return x


class Grayscale(Op):
    """All three channels become the luma."""

    name = "grayscale"

    def __init__(self, p: float = 0.2):
        self.p = p

    def bind(self, shape: tuple[int, ...]) -> str | None:
        if shape[0] == 3:
            return None
        self.p = 0.0
        return f"grayscale is left out, it needs 3 channels and the images have {shape[0]}"

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return luma(x).repeat(1, 3, 1, 1)


class GaussianBlur(Op):
    """A Gaussian of `sigma` pixels, from a uniform distribution.

    `sigma: auto` is SimCLR's [0.1, 2.0] of a picture of 224, with the upper end never above 1/32 of the side: 2.0
    from 64 pixels on, 1.0 at 32, 0.25 at 8. (SimCLR's authors do not blur CIFAR at all; solo-learn uses 2.0 at 32
    pixels, which leaves little of a picture; 1.0 keeps what a person needs to name it.) The kernel reaches to three
    sigma, where torchvision's is a fixed 23 of 224: what is cut off weighs 0.3 %.
    """

    name = "gaussian_blur"

    def __init__(self, sigma: str | Sequence[float] = "auto", p: float = 0.5):
        self.sigma: tuple[float, float] | None = None if sigma == "auto" else interval("sigma", sigma, 0.01, 100.0)
        self.p = p
        self.range = (0.1, 2.0)
        self.radius = 1

    def bind(self, shape: tuple[int, ...]) -> str | None:
        if self.sigma is None:
            self.range = (0.1, max(0.1, min(2.0, min(shape[1:]) / 32)))
        else:
            self.range = self.sigma
        self.radius = max(1, math.ceil(3 * self.range[1]))
        return None

    def uniforms(self) -> dict[str, int]:
        return {"sigma": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"kernel": gaussian(between(u["sigma"][:, 0].double(), *self.range), self.radius)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return blur(x, params["kernel"])


class Solarize(Op):
    """Turns the values from `threshold` (of 0..1) on into their negative."""

    name = "solarize"

    def __init__(self, threshold: float = 0.5, p: float = 0.2):
        self.threshold = number("threshold", threshold, 0.0, 1.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return torch.where(x >= self.threshold, 1 - x, x)


class RandomAffine(Op):
    """Turns, scales, slants and moves the picture about its centre, bilinearly, with torchvision's matrix.

    `degrees` and `shear` (horizontal, in degrees): within [-v, v]; `scale`: [a, b]; `translate`: within [-v, v] of
    the side (not rounded to whole pixels, as torchvision does: on 8x8 digits a pixel is much). `padding`: zeros,
    border or reflection.
    """

    name = "random_affine"

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
        padding: str = "zeros",
        p: float = 1.0,
    ):
        self.degrees = number("degrees", degrees, 0.0, 180.0)
        self.translate = number("translate", translate, 0.0, 1.0)
        self.scale = interval("scale", scale, 0.01, 100.0)
        self.shear = number("shear", shear, 0.0, 80.0)
        self.padding = choice("padding", padding, ["zeros", "border", "reflection"])
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"angle": 1, "x": 1, "y": 1, "scale": 1, "shear": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        v = {k: t[:, 0].double() for k, t in u.items()}
        angle = between(v["angle"], -self.degrees, self.degrees).deg2rad_()
        slant = between(v["shear"], -self.shear, self.shear).deg2rad_().tan()
        scale = between(v["scale"], *self.scale)
        x, y = between(v["x"], -self.translate, self.translate), between(v["y"], -self.translate, self.translate)
        return {"matrix": affine_matrix(angle, slant, scale), "move": torch.stack([x, y], 1)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return affine(x, params["matrix"], params["move"], self.padding)


def affine_matrix(angle: Tensor, slant: Tensor, scale: Tensor) -> Tensor:
    """(B, 2, 2) float64: from where the output pixel (x, y) is read, about the centre. `angle` in radians, clockwise
    on the screen; `slant` the tangent of the shear. The inverse of rotation times shear times scale."""
    c, s = angle.cos() / scale, angle.sin() / scale
    return torch.stack([torch.stack([c + slant * -s, s + slant * c], 1), torch.stack([-s, c], 1)], 1)


def affine(x: Tensor, matrix: Tensor, move: Tensor, padding: str = "zeros") -> Tensor:
    """(B, C, H, W) read through `matrix` (B, 2, 2) after moving by `move` (B, 2), in parts of the width and height."""
    height, width = x.shape[2:]
    rows = (torch.arange(height, dtype=torch.float64, device=x.device) + 0.5 - height / 2)[None, :, None]
    columns = (torch.arange(width, dtype=torch.float64, device=x.device) + 0.5 - width / 2)[None, None, :]
    columns, rows = columns - (move[:, 0] * width)[:, None, None], rows - (move[:, 1] * height)[:, None, None]
    m = matrix[:, :, :, None, None]
    at_x = (m[:, 0, 0] * columns + m[:, 0, 1] * rows) * (2 / width)
    at_y = (m[:, 1, 0] * columns + m[:, 1, 1] * rows) * (2 / height)
    grid = torch.stack([at_x, at_y], -1).to(torch.float32)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)


class RandomIntensity(Op):
    """Multiplies the picture by a factor within [1 - strength, 1 + strength]. Not clamped: what follows is
    normalisation."""

    name = "random_intensity"

    def __init__(self, strength: float = 0.4, p: float = 1.0):
        self.strength = number("strength", strength, 0.0, 1.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"factor": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"factor": between(u["factor"][:, 0], 1 - self.strength, 1 + self.strength)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x * _each(params["factor"])


class Noise(Op):
    """Adds normal noise of standard deviation `sigma` (of 0..1) to each value. Not clamped."""

    name = "noise"

    def __init__(self, sigma: float = 0.1, p: float = 1.0):
        self.sigma = number("sigma", sigma, 0.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return with_noise(x, "noise/value", self.sigma, draw)


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

    def frame(self, images: Sequence[Image.Image], draw: Draw) -> Tensor:
        """Pictures of any sizes -> (B, C, h, w) uint8: the region alone, cut out and resized by Pillow."""
        from PIL import Image

        op = self.frame_op
        widths, heights = zip(*(image.size for image in images), strict=True)
        sizes = [torch.tensor(side, dtype=torch.float64, device=draw.ids.device) for side in (heights, widths)]
        region = op.region(Numbers([op], draw, draw.ids.device).of(op), *sizes)
        out = torch.empty(len(images), *self.shape, dtype=torch.uint8)
        how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[op.interpolation]
        boxes = (
            torch.stack([region.left, region.top, region.left + region.width, region.top + region.height], 1)
            .long()
            .tolist()
        )
        for i, (image, box) in enumerate(zip(images, boxes, strict=True)):
            assert len(image.getbands()) == self.channels, (image.mode, self.channels)
            picture = image.crop(box) if tuple(box) != (0, 0, *image.size) else image
            if picture.size != (op.out[1], op.out[0]):
                picture = picture.resize((op.out[1], op.out[0]), how)
            pixels = torch.from_numpy(np.array(picture))
            out[i] = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
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
