"""Corruptions of images: functions of images (B, C, H, W) in 0..1, a severity 0..4 and a generator for each sample.

See `corruption.py`. Lengths are fractions of the longer side, so that a severity has the same effect at 8 x 8 and 224 x 224.
`CORRUPTIONS` clip and quantize to 8 bits, as in an image file.
"""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.corruption import Corruption, Generators, normal, uniform


def quantized(corruption: Corruption) -> Corruption:
    """The corruption with values clipped to 0..1 and rounded to 8 bits."""

    def corrupt(x: Tensor, severity: int, generators: Generators) -> Tensor:
        return (corruption(x, severity, generators).clamp(0, 1) * 255).round() / 255

    return corrupt


def gaussian_noise(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Additive Gaussian noise: standard deviation 0.04 .. 0.26 of the value range."""
    return x + (0.04, 0.08, 0.12, 0.18, 0.26)[s] * normal(x, generators)


def shot_noise(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Poisson noise: a mean of 200 .. 8 counts at white."""
    light = (200, 80, 40, 18, 8)[s]
    counts = [torch.poisson(image.clamp(0, 1) * light, generator=g) for image, g in zip(x, generators, strict=True)]
    return torch.stack(counts) / light


def impulse_noise(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Salt-and-pepper noise: 1 .. 20 % of all values become 0 or 1."""
    u, share = uniform(x, generators), (0.01, 0.03, 0.06, 0.12, 0.2)[s]
    return torch.where(u < share / 2, 0.0, torch.where(u > 1 - share / 2, 1.0, x))


def gaussian_blur(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Gaussian blur: sigma 1.2 .. 6 % of the longer side."""
    return blur(x, (0.012, 0.02, 0.03, 0.045, 0.06)[s] * max(x.shape[2:]))


def motion_blur(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Motion blur: mean along a line of 4 .. 24 % of the longer side, in a random direction per sample."""
    length = (0.04, 0.08, 0.12, 0.18, 0.24)[s] * max(x.shape[2:])
    angle = uniform(x, generators, 1)[:, 0] * math.pi
    steps = (torch.linspace(-0.5, 0.5, 2 * math.ceil(length / 2) + 1) * length).tolist()
    total = torch.zeros_like(x)
    for t in steps:
        total += shifted(x, t * angle.cos(), t * angle.sin())
    return total / len(steps)


def fog(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Fog: blend with bright 1/f noise of four octaves, at an opacity of 20 .. 75 %."""
    share = (0.2, 0.35, 0.5, 0.62, 0.75)[s]
    veil, weight = torch.zeros(len(x), 1, *x.shape[2:]), 0.0
    for octave in range(4):
        side = 2 ** (octave + 1)
        coarse = uniform(x, generators, 1, side, side)
        veil += F.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=True) / side
        weight += 1 / side
    return (1 - share) * x + share * (0.55 + 0.45 * veil / weight)


def brightness(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Add 0.1 .. 0.5 of the value range."""
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[s]


def contrast(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Reduce contrast: scale differences from the image's mean by 0.7 .. 0.12."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (0.7, 0.5, 0.35, 0.22, 0.12)[s] + mean


def pixelate(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Reduce resolution to 75 .. 25 % per axis: each pixel becomes the mean of its cell."""
    for axis in (2, 3):
        side = x.shape[axis]
        fewer = max(1, round(side * (0.75, 0.6, 0.5, 0.37, 0.25)[s]))
        place = torch.arange(side) * fewer // side
        shape = [fewer if a == axis else n for a, n in enumerate(x.shape)]
        means = torch.zeros(shape).index_add_(axis, place, x)
        count = torch.bincount(place, minlength=fewer).view(-1, *([1] * (3 - axis)))
        x = (means / count).index_select(axis, place)
    return x


def jpeg(x: Tensor, s: int, generators: Generators) -> Tensor:
    """JPEG compression of quality 40 .. 5 (Pillow). Images without 3 channels are compressed per channel."""
    quality = (40, 25, 16, 10, 5)[s]
    whole = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    if x.shape[1] == 3:
        return torch.stack([_jpeg(image, quality) for image in whole]).float() / 255
    flat = torch.stack([_jpeg(plane[None], quality) for plane in whole.flatten(0, 1)])
    return flat.view(x.shape).float() / 255


def _jpeg(image: Tensor, quality: int) -> Tensor:
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file)))
    return decoded[None] if decoded.ndim == 2 else decoded.permute(2, 0, 1)


def rotation(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Rotate by 8 .. 40 degrees in a random sense, with reflection padding."""
    angle = math.radians((8, 15, 22, 30, 40)[s])
    turn = torch.where(uniform(x, generators, 1)[:, 0] < 0.5, -angle, angle)
    height, width = x.shape[2:]
    zero = torch.zeros_like(turn)
    matrix = torch.stack(  # in grid coordinates, which are scaled per axis
        [
            torch.stack([turn.cos(), -turn.sin() * height / width, zero], dim=1),
            torch.stack([turn.sin() * width / height, turn.cos(), zero], dim=1),
        ],
        dim=1,
    )
    return _moved(x, matrix)


def translation(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Translate by 5 .. 25 % of the longer side in a random direction per sample, with reflection padding."""
    distance = (0.05, 0.1, 0.15, 0.2, 0.25)[s] * max(x.shape[2:])
    angle = uniform(x, generators, 1)[:, 0] * 2 * math.pi
    return shifted(x, distance * angle.cos(), distance * angle.sin())


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, truncated at 3 sigma, with replicate padding."""
    radius = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma) ** 2)
    line = (line / line.sum()).to(x.device)
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), line[None, None, None])
    return F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), line[None, None, :, None]).view(x.shape)


def shifted(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Translate by (B,) pixels along each axis: bilinear, with reflection padding."""
    height, width = x.shape[2:]
    one, zero = torch.ones_like(right), torch.zeros_like(right)
    matrix = torch.stack(
        [
            torch.stack([one, zero, -2 * right / width], dim=1),
            torch.stack([zero, one, -2 * down / height], dim=1),
        ],
        dim=1,
    )
    return _moved(x, matrix)


def _moved(x: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: quantized(f)
    for f in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        gaussian_blur,
        motion_blur,
        fog,
        brightness,
        contrast,
        pixelate,
        jpeg,
        rotation,
        translation,
    )
}
