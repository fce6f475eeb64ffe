"""Self-made corruptions at five strengths, after Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019: the same kinds, our own code and strengths. Numbers do not compare with CIFAR-10-C's.

A corruption is a function (x, strength 0..4, a generator for each sample) -> x of images (B, C, H, W) in 0..1 or series (B, C, T)
in standard deviations of the channel, on the CPU. Lengths are shares of the longer side, so that 8 x 8 and 224 x 224 suffer alike.
Corrupted images are clipped and rounded to 8 bits, as a file would be.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.rng import derive

STRENGTHS = 5
Corruption = Callable[[Tensor, int, Sequence[torch.Generator]], Tensor]


def corrupt(x: Tensor, name: str, strength: int, ids: Tensor, seed: int) -> Tensor:
    """`x` (B, ...) corrupted by `name` at `strength` 1..5: a function of (seed, id, name), whatever the batch.

    The random numbers of a sample are the same at each strength, so strengths differ in strength alone.
    """
    assert 1 <= strength <= STRENGTHS, strength
    generators = [torch.Generator().manual_seed(derive(seed, "corrupt", name, i)) for i in ids.tolist()]
    image = x.ndim == 4
    out = (IMAGES if image else SERIES)[name](x.cpu().float(), strength - 1, generators)
    return (out.clamp(0, 1) * 255).round() / 255 if image else out


def normal(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])


def uniform(x: Tensor, generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    return torch.stack([torch.rand(shape or x.shape[1:], generator=g) for g in generators])


# images --------------------------------------------------------------------------------------------------------------


def gaussian_noise(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """A sensor in the dark: sigma 0.04 .. 0.26 of the range."""
    return x + (0.04, 0.08, 0.12, 0.18, 0.26)[s] * normal(x, generators)


def shot_noise(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Few photons: Poisson counts with 200 .. 8 at white."""
    light = (200, 80, 40, 18, 8)[s]
    counts = [torch.poisson(image.clamp(0, 1) * light, generator=g) for image, g in zip(x, generators, strict=True)]
    return torch.stack(counts) / light


def impulse_noise(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Salt and pepper: 1 .. 20 % of all values become 0 or 1."""
    u, share = uniform(x, generators), (0.01, 0.03, 0.06, 0.12, 0.2)[s]
    return torch.where(u < share / 2, 0.0, torch.where(u > 1 - share / 2, 1.0, x))


def gaussian_blur(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Out of focus: sigma 1.2 .. 6 % of the longer side."""
    return blur(x, (0.012, 0.02, 0.03, 0.045, 0.06)[s] * max(x.shape[2:]))


def motion_blur(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """A moving camera: the mean along a line of 4 .. 24 % of the longer side, in a direction of the sample's own."""
    length = (0.04, 0.08, 0.12, 0.18, 0.24)[s] * max(x.shape[2:])
    angle = uniform(x, generators, 1)[:, 0] * math.pi
    steps = (torch.linspace(-0.5, 0.5, 2 * math.ceil(length / 2) + 1) * length).tolist()
    total = torch.zeros_like(x)
    for t in steps:
        total += shifted(x, t * angle.cos(), t * angle.sin())
    return total / len(steps)


def fog(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """A pale veil with slow structure: octaves of smooth noise, 1 / frequency each, over 20 .. 75 % of the image."""
    share = (0.2, 0.35, 0.5, 0.62, 0.75)[s]
    veil, weight = torch.zeros(len(x), 1, *x.shape[2:]), 0.0
    for octave in range(4):
        side = 2 ** (octave + 1)
        coarse = uniform(x, generators, 1, side, side)
        veil += F.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=True) / side
        weight += 1 / side
    return (1 - share) * x + share * (0.55 + 0.45 * veil / weight)


def brightness(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Overexposed: 0.1 .. 0.5 of the range is added."""
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[s]


def contrast(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Flat light: differences from the image's mean shrink to 70 .. 12 %."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (0.7, 0.5, 0.35, 0.22, 0.12)[s] + mean


def pixelate(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """As if it had 75 .. 25 % of its pixels each way: neighbors that would share one have their mean."""
    for axis in (2, 3):
        side = x.shape[axis]
        fewer = max(1, round(side * (0.75, 0.6, 0.5, 0.37, 0.25)[s]))
        place = torch.arange(side) * fewer // side
        shape = [fewer if a == axis else n for a, n in enumerate(x.shape)]
        means = torch.zeros(shape).index_add_(axis, place, x)
        count = torch.bincount(place, minlength=fewer).view(-1, *([1] * (3 - axis)))
        x = (means / count).index_select(axis, place)
    return x


def jpeg(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Saved too small: JPEG of quality 40 .. 5 (Pillow); other than 3 channels one by one."""
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


def rotation(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Turned by 8 .. 40 degrees, one way or the other; what comes in from outside is the mirrored edge."""
    angle = math.radians((8, 15, 22, 30, 40)[s])
    turn = torch.where(uniform(x, generators, 1)[:, 0] < 0.5, -angle, angle)
    height, width = x.shape[2:]
    zero = torch.zeros_like(turn)
    matrix = torch.stack(  # in grid units, where each axis has its own length
        [
            torch.stack([turn.cos(), -turn.sin() * height / width, zero], dim=1),
            torch.stack([turn.sin() * width / height, turn.cos(), zero], dim=1),
        ],
        dim=1,
    )
    return _moved(x, matrix)


def translation(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Moved by 5 .. 25 % of the longer side, in a direction of the sample's own; what comes in is the mirrored edge."""
    distance = (0.05, 0.1, 0.15, 0.2, 0.25)[s] * max(x.shape[2:])
    angle = uniform(x, generators, 1)[:, 0] * 2 * math.pi
    return shifted(x, distance * angle.cos(), distance * angle.sin())


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of `sigma` pixels, cut at 3 sigma; the edge is repeated."""
    radius = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma) ** 2)
    line = (line / line.sum()).to(x.device)
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), line[None, None, None])
    return F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), line[None, None, :, None]).view(x.shape)


def shifted(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Moved by (B,) pixels each way, bilinear; what comes in from outside is the mirrored edge."""
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


# series: NaN (padding) stays NaN -------------------------------------------------------------------------------------


def noise(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Sigma 0.1 .. 1.2 of the channel's own."""
    return x + (0.1, 0.25, 0.5, 0.8, 1.2)[s] * normal(x, generators)


def scaling(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Each channel by a factor, up or down, of 1.15 .. 2.5."""
    factor = (1.15, 1.3, 1.6, 2.0, 2.5)[s]
    return torch.where(uniform(x, generators, x.shape[1], 1) < 0.5, x / factor, x * factor)


def drift(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """A slow wave of amplitude 0.2 .. 2 is added, a half to two periods long, to each channel its own."""
    u = uniform(x, generators, x.shape[1], 2)
    time = torch.linspace(0, 2 * math.pi, x.shape[2])
    return x + (0.2, 0.5, 0.9, 1.4, 2.0)[s] * torch.sin((0.5 + 1.5 * u[..., :1]) * time + 2 * math.pi * u[..., 1:])


def dropout(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """5 .. 60 % of all time steps read 0, the mean."""
    dropped = uniform(x, generators, 1, x.shape[2]) < (0.05, 0.12, 0.25, 0.4, 0.6)[s]
    return torch.where(dropped & ~x.isnan(), 0.0, x)


def time_shift(x: Tensor, s: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Moved along by 3 .. 40 % of its own length, what leaves on one side comes in on the other."""
    share = (0.03, 0.08, 0.15, 0.25, 0.4)[s]
    sign = torch.where(uniform(x, generators, 1)[:, 0] < 0.5, -1, 1).tolist()
    out = x.clone()
    for i, distance in enumerate(sign):
        there = torch.nonzero(~x[i].isnan().all(dim=0)).flatten()
        out[i][:, there] = x[i][:, there].roll(distance * max(1, round(share * len(there))), dims=1)
    return out


IMAGES: dict[str, Corruption] = {
    f.__name__: f
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
SERIES: dict[str, Corruption] = {f.__name__: f for f in (noise, scaling, drift, dropout, time_shift)}
