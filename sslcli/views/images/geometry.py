"""Geometric ops: crop regions, flips and affine maps of images (B, C, H, W), with torchvision's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.rng import Draw
from sslcli.views.images.resample import FILTERS, Region
from sslcli.views.op import (
    BadValue,
    Op,
    Params,
    between,
    choice,
    interval,
    number,
    output_size,
)

TRIES = 10  # torchvision's number of attempts at a region inside the image


class Frame(Op):
    """An op that selects a region of an image of any size and resizes it to a fixed size. Must be the first op."""

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
        """The region of each sample; `height`, `width` (B,) float64: the sizes of the samples."""
        raise NotImplementedError


class Resize(Frame):
    """Resize to a fixed size. `fit=crop` takes the largest center crop with the target's aspect ratio, a fraction `crop` of it
    (ImageNet evaluation: 0.875, 224 of 256); `fit=stretch` takes the whole image and changes its aspect ratio."""

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
    """Random resized crop: area fraction `scale`, aspect ratio `ratio` (log-uniform). torchvision's distribution: ten attempts at a
    region inside the image, then the largest center crop with an allowed aspect ratio."""

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
        w, h, valid = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0], fits.any(1)
        aspect = width / height
        narrow, wide = aspect < self.ratio[0], aspect > self.ratio[1]
        h = torch.where(valid, h, torch.where(narrow, (width / self.ratio[0]).round_(), height))
        w = torch.where(valid, w, torch.where(wide, (height * self.ratio[1]).round_(), width))
        top = torch.where(valid, (u["top"][:, 0].double() * (height - h + 1)).floor_(), ((height - h) / 2).floor_())
        left = torch.where(valid, (u["left"][:, 0].double() * (width - w + 1)).floor_(), ((width - w) / 2).floor_())
        return Region(top, left, h, w)


class HorizontalFlip(Op):
    """Mirror horizontally."""

    name = "horizontal_flip"

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x.flip(-1)

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("mirror", None)]


class VerticalFlip(Op):
    """Mirror vertically (satellite and microscope images)."""

    name = "vertical_flip"

    def __init__(self, p: float = 0.5):
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return x.flip(-2)

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("upside_down", None)]


class RandomCrop(Op):
    """Shift by an integer number of pixels: pad by `padding` pixels (`mode` zeros or reflect) and crop to the original size. A
    `padding` below 1 is a fraction of the side."""

    name = "random_crop"

    def __init__(self, padding: float = 0.125, mode: str = "zeros"):
        self.padding = number("padding", padding, 0.0)
        self.mode = choice("mode", mode, ["zeros", "reflect"])
        self.by: tuple[int, ...] = (0, 0)

    def bind(self, shape: tuple[int, ...]) -> str | None:
        relative = self.padding < 1
        self.by = tuple(round(self.padding * side) if relative else round(self.padding) for side in shape[1:])
        if self.mode == "reflect" and any(b >= side for b, side in zip(self.by, shape[1:], strict=True)):
            raise BadValue("padding", f"a number below the side of the image, {min(shape[1:])}")
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


class RandomAffine(Op):
    """Random affine map about the center: rotation, scaling, shear and translation, bilinear, with torchvision's matrix.

    `degrees` and `shear` (horizontal, in degrees): within [-v, v]; `scale`: [a, b]; `translate`: within [-v, v] of the side (not
    rounded to integer pixels as in torchvision, because a pixel is large on 8x8 digits). `padding`: zeros, border or reflection.
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
    """Inverse map (B, 2, 2) float64: where the output pixel (x, y), relative to the center, is read from. `angle` in radians,
    clockwise on the screen; `slant` the tangent of the shear. The inverse of rotation times shear times scale."""
    c, s = angle.cos() / scale, angle.sin() / scale
    return torch.stack([torch.stack([c + slant * -s, s + slant * c], 1), torch.stack([-s, c], 1)], 1)


def affine(x: Tensor, matrix: Tensor, move: Tensor, padding: str = "zeros") -> Tensor:
    """Sample (B, C, H, W) at `matrix` (B, 2, 2) times the pixel, shifted by `move` (B, 2) in fractions of width and height."""
    height, width = x.shape[2:]
    rows = (torch.arange(height, dtype=torch.float64, device=x.device) + 0.5 - height / 2)[None, :, None]
    columns = (torch.arange(width, dtype=torch.float64, device=x.device) + 0.5 - width / 2)[None, None, :]
    columns, rows = columns - (move[:, 0] * width)[:, None, None], rows - (move[:, 1] * height)[:, None, None]
    m = matrix[:, :, :, None, None]
    at_x = (m[:, 0, 0] * columns + m[:, 0, 1] * rows) * (2 / width)
    at_y = (m[:, 1, 0] * columns + m[:, 1, 1] * rows) * (2 / height)
    grid = torch.stack([at_x, at_y], -1).to(torch.float32)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)
