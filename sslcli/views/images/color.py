"""Color, blur, intensity and noise ops on images (B, C, H, W) float32 in 0..1, with torchvision's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.rng import Draw
from sslcli.views.images.resample import blur, gaussian
from sslcli.views.op import (
    Op,
    Params,
    add_noise,
    between,
    interval,
    number,
)

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1) float32."""
    return values.to(torch.float32).view(-1, 1, 1, 1)


def luma(x: Tensor) -> Tensor:
    """Luma (ITU-R 601): (B, 3, H, W) -> (B, 1, H, W)."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (r * LUMA[0]).add_(g * LUMA[1]).add_(b * LUMA[2])


def exact_mean(x: Tensor) -> Tensor:
    """Mean over all pixels, (B, C, H, W) in 0..1 -> (B, 1, 1, 1), each rounded to 2**-16, so that any order of summation gives the
    same bits."""
    levels = (x * 65536.0).round_().flatten(1)
    return _each(levels.sum(1, dtype=torch.float64).div_(65536.0 * levels.shape[1]))


def jitter_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply (B, C, H, W) by `factor` (B,), clamped to 0..1."""
    return (x * _each(factor)).clamp_(0, 1)


def jitter_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image (with other than 3 channels: the mean of all channels), clamped to 0..1."""
    factor = _each(factor)
    return (x * factor).add_(exact_mean(luma(x) if x.shape[1] == 3 else x) * (1 - factor)).clamp_(0, 1)


def jitter_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend each pixel with its luma, clamped to 0..1. 3 channels."""
    factor = _each(factor)
    return (x * factor).add_(luma(x).mul_(1 - factor)).clamp_(0, 1)


def jitter_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue by `turn` (B,) full turns in HSV. 3 channels."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    high, low = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    range_ = high - low
    sixth = (range_ * 6).masked_fill_(range_ == 0, 1.0)
    # hue in sixths: (g - b) / range where red is the maximum, (b - r) / range + 2 where green, else (r - g) / range + 4
    red = high == r
    green = (high == g).logical_and_(~red)
    hue = torch.where(red, g - b, torch.where(green, b - r, r - g)).div_(sixth)
    hue.add_(torch.full_like(hue, 2 / 3).masked_fill_(green, 1 / 3).masked_fill_(red, 0.0))
    hue.add_(_each(turn + 1))  # adding a full turn changes nothing and keeps the hue positive
    out = torch.empty_like(x)
    # Around the circle red is maximal for one sixth, falls for one, is minimal for two, rises for one, is maximal for one; green
    # and blue follow a third and two thirds later.
    for channel, later in enumerate((0.0, 2 / 3, 1 / 3)):
        wave = (hue + later).frac_().mul_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.add(wave.mul_(range_), low, out=out[:, channel : channel + 1])
    return out


JITTER = {
    "brightness": jitter_brightness,
    "contrast": jitter_contrast,
    "saturation": jitter_saturation,
    "hue": jitter_hue,
}


class ColorJitter(Op):
    """Random brightness, contrast, saturation and hue, each clamped to 0..1, as in torchvision. They are applied in this order
    (torchvision draws the order per call), so that the whole batch needs the same computation.

    `brightness`, `contrast`, `saturation`: a factor in [max(0, 1 - v), 1 + v]; `hue`: a shift in [-v, v] turns, v <= 0.5.
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
        return f"color_jitter: saturation and hue are skipped, they require 3 channels and the images have {shape[0]}"

    def uniforms(self) -> dict[str, int]:
        return {k: 1 for k in JITTER if getattr(self, k)}

    def params(self, u: dict[str, Tensor]) -> Params:
        params = {k: between(u[k][:, 0], max(0.0, 1 - getattr(self, k)), 1 + getattr(self, k)) for k in u if k != "hue"}
        if "hue" in u:
            params["hue"] = between(u["hue"][:, 0], -self.hue, self.hue)
        return params

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        for key, step in JITTER.items():
            if key in params:
                x = step(x, params[key])
        return x

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        values = {key: params[key] + 1 if key == "hue" else params[key] for key in JITTER if key in params}
        return [(key, value[:, None]) for key, value in values.items()]


class Grayscale(Op):
    """Replace all three channels by the luma."""

    name = "grayscale"

    def __init__(self, p: float = 0.2):
        self.p = p

    def bind(self, shape: tuple[int, ...]) -> str | None:
        if shape[0] == 3:
            return None
        self.p = 0.0
        return f"grayscale is skipped, it requires 3 channels and the images have {shape[0]}"

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return luma(x).repeat(1, 3, 1, 1)

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("grayscale", None)]


class GaussianBlur(Op):
    """Gaussian blur with `sigma` pixels, drawn uniformly.

    `sigma: auto` is SimCLR's [0.1, 2.0] for images of 224 pixels, with the upper end at most 1/32 of the side: 2.0 from 64 pixels
    on, 1.0 at 32, 0.25 at 8. (SimCLR's authors do not blur CIFAR; solo-learn uses 2.0 at 32 pixels, which removes most detail.)
    The kernel extends to three sigma, where torchvision's is a fixed 23 of 224 pixels: the truncated weight is 0.3 %.
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

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("blur", params["kernel"])]


class Solarize(Op):
    """Invert values of at least `threshold` (in 0..1)."""

    name = "solarize"

    def __init__(self, threshold: float = 0.5, p: float = 0.2):
        self.threshold = number("threshold", threshold, 0.0, 1.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return torch.where(x >= self.threshold, 1 - x, x)

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("solarize", torch.tensor([[self.threshold]]))]


class RandomIntensity(Op):
    """Multiply the image by a factor in [1 - strength, 1 + strength]. Not clamped."""

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

    def native(self, params: Params) -> list[tuple[str, Tensor | None]]:
        return [("intensity", params["factor"][:, None])]


class Noise(Op):
    """Add normal noise of standard deviation `sigma` (in units of 0..1) to each value. Not clamped."""

    name = "noise"

    def __init__(self, sigma: float = 0.1, p: float = 1.0):
        self.sigma = number("sigma", sigma, 0.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return add_noise(x, "noise/value", self.sigma, draw)
