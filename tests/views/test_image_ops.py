"""Each image op against torchvision v2 or Pillow with the same parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from sslcli.rng import Draw
from sslcli.views.images import color, geometry
from sslcli.views.images.resample import Region, blur, crop_resize, gaussian, resample, weights

LEVEL = 1 / 255
# Weights are rounded to 12 bits and the middle result to 1/8 level, which costs up to a few tenths of a level.
RESAMPLING = 0.4 * LEVEL
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
PIL_MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pixels(n: int, c: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Images with smooth areas, sharp edges and noise, uint8."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, h), torch.linspace(0, 3, w), indexing="ij")
    phase = torch.rand(n, c, 2, 1, 1, generator=g) * 6
    smooth = (torch.sin(y + phase[:, :, 0]) * torch.cos(2 * x + phase[:, :, 1]) + 1) * 110
    edges = torch.where(((x + y) * 4).long() % 2 == 0, 35.0, 0.0)
    noise = torch.randn(n, c, h, w, generator=g) * 12
    return (smooth + edges + noise).clamp(0, 255).round().to(torch.uint8)


def unit(x: Tensor) -> Tensor:
    return x.to(torch.float32) / 255


def regions(n: int, h: int, w: int, seed: int = 0) -> Region:
    g = torch.Generator().manual_seed(seed)
    height = torch.randint(1, h + 1, (n,), generator=g)
    width = torch.randint(1, w + 1, (n,), generator=g)
    top = (torch.rand(n, generator=g) * (h - height + 1)).floor()
    left = (torch.rand(n, generator=g) * (w - width + 1)).floor()
    return Region(top.double(), left.double(), height.double(), width.double())


def each_region(r: Region) -> list[tuple[int, int, int, int]]:
    return list(zip(*(v.long().tolist() for v in (r.top, r.left, r.height, r.width)), strict=True))


# Crop and resize


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("raw", "out"),
    [((32, 32), (32, 32)), ((8, 8), (8, 8)), ((50, 37), (16, 20)), ((21, 90), (7, 64)), ((9, 5), (12, 11))],
)
def test_crop_resize_against_torchvision(name, raw, out):
    x, r = pixels(24, 3, *raw), regions(24, *raw)
    got = crop_resize(x, r, out, name)
    for i, box in enumerate(each_region(r)):
        want = tv.resized_crop(unit(x[i]), *box, list(out), MODES[name], antialias=True).clamp(0, 1)
        torch.testing.assert_close(got[i], want, rtol=0, atol=RESAMPLING)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_crop_resize_against_pillow(name):
    x, r = pixels(16, 3, 40, 56), regions(16, 40, 56, seed=3)
    got = crop_resize(x, r, (24, 18), name)
    for i, (top, left, h, w) in enumerate(each_region(r)):
        picture = Image.fromarray(x[i].permute(1, 2, 0).numpy()).crop((left, top, left + w, top + h))
        want = unit(torch.from_numpy(np.array(picture.resize((18, 24), PIL_MODES[name]))).permute(2, 0, 1))
        # Pillow rounds to whole levels after each of its two passes, and cuts off there what a cubic overshoots
        torch.testing.assert_close(got[i], want, rtol=0, atol={"bilinear": 1.5, "bicubic": 4}[name] * LEVEL)
        assert float((got[i] - want).abs().mean()) < 0.4 * LEVEL


def test_crop_resize_flip_mirrors_result():
    x, r = pixels(10, 3, 32, 32), regions(10, 32, 32)
    on = torch.arange(10) % 2 == 0
    plain = crop_resize(x, r, (32, 32), "bicubic")
    got = crop_resize(x, r, (32, 32), "bicubic", on)
    assert torch.equal(got[~on], plain[~on])
    torch.testing.assert_close(
        got[on], plain[on].flip(-1), rtol=0, atol=0.1 * LEVEL
    )  # which weight of two equal ones is mended


def test_crop_resize_identity():
    x = pixels(4, 2, 16, 12)
    zero = torch.zeros(4, dtype=torch.float64)
    for name in MODES:
        got = crop_resize(x, Region(zero, zero, zero + 16, zero + 12), (16, 12), name)
        torch.testing.assert_close(got, unit(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "out"), [(32, 32), (100, 12), (7, 30), (1, 5), (3, 1)])
def test_weights_are_integers_with_sum_4096(name, size, out):
    r = regions(40, size, size)
    w = weights(r.top, r.height, size, out, name)
    assert w.shape == (40, out, size)
    assert torch.equal(w, w.round())
    assert torch.equal(w.sum(-1), torch.full((40, out), 4096.0))
    outside = torch.arange(size)[None] < r.top[:, None]
    outside |= torch.arange(size)[None] >= (r.top + r.height)[:, None]
    assert (w * outside[:, None] == 0).all()


def test_resampling_sums_are_exact():
    """The sums are exact in float32 in the worst case, so that libraries, devices and batch sizes agree."""
    x = (torch.rand(30, 3, 33, 29) > 0.5).to(torch.uint8) * 255  # the largest overshoot
    r = regions(30, 33, 29, seed=5)
    rows, columns = (
        weights(s, n, full, 17, "bicubic") for s, n, full in ((r.top, r.height, 33), (r.left, r.width, 29))
    )
    middle = torch.einsum("bchw,bow->bcho", x.double(), columns.double())
    middle = (middle * 2.0**-9).round()
    want = torch.einsum("bph,bcho->bcpo", rows.double(), middle)
    assert float(want.abs().max()) < 2**24
    assert float(torch.einsum("bph,bcho->bcpo", rows.double().abs(), middle.abs()).max()) < 2**24
    want = (want.to(torch.float32) * (2.0**-15 / 255)).clamp(0, 1)
    assert torch.equal(resample(x, rows, columns), want)


# Regions


@pytest.mark.parametrize(
    ("h", "w", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (224, 300, (0.2, 1.0), (3 / 4, 4 / 3)),
        (20, 48, (0.25, 1.0), (3 / 4, 4 / 3)),  # few tries fit: the fallback happens
        (8, 8, (0.5, 1.0), (0.5, 2.0)),
    ],
)
def test_regions_match_torchvision_distribution(h, w, scale, ratio):
    n = 3000
    torch.manual_seed(0)
    blank = torch.empty(1, h, w)
    want = torch.tensor([RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(n)]).double()
    op = geometry.RandomResizedCrop(scale, ratio)
    r = op.region(
        Draw(0, 0, torch.arange(n)).uniforms(op.uniforms()), *(torch.full((n,), float(v)).double() for v in (h, w))
    )
    got = torch.stack([r.top, r.left, r.height, r.width], 1)
    for j in range(4):
        values = torch.cat([got[:, j], want[:, j]]).unique()
        cdf = [torch.searchsorted(v[:, j].sort().values.contiguous(), values, right=True) / n for v in (got, want)]
        assert float((cdf[0] - cdf[1]).abs().max()) < 1.95 * math.sqrt(2 / n)  # two-sample KS, once in 1000
    area, found = got[:, 2] * got[:, 3], want[:, 2] * want[:, 3]
    assert abs(float(area.mean() - found.mean())) < 4 * float(found.std()) * math.sqrt(2 / n)
    assert (r.top >= 0).all()
    assert (r.left >= 0).all()
    assert (r.top + r.height <= h).all()
    assert (r.left + r.width <= w).all()


@pytest.mark.parametrize(("h", "w", "want"), [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10))])
def test_region_fallback(h, w, want):
    op = geometry.RandomResizedCrop((0.9, 1.0))
    r = op.region(
        Draw(0, 0, torch.arange(5)).uniforms(op.uniforms()), *(torch.full((5,), float(v)).double() for v in (h, w))
    )
    assert each_region(r) == [want] * 5


def test_regions_of_mixed_sizes_are_independent():
    op = geometry.RandomResizedCrop()
    sizes = torch.tensor([[20.0, 400.0], [33.0, 7.0], [224.0, 224.0]]).double()
    draw = Draw(1, 2, torch.tensor([5, 9, 2]))
    together = op.region(draw.uniforms(op.uniforms()), sizes[:, 0], sizes[:, 1])
    for i in range(3):
        alone = op.region(draw.rows(slice(i, i + 1)).uniforms(op.uniforms()), sizes[i : i + 1, 0], sizes[i : i + 1, 1])
        assert each_region(alone) == [each_region(together)[i]]


@pytest.mark.parametrize(
    ("args", "size", "want"),
    [
        ({}, (40, 60), (0, 10, 40, 40)),
        ({}, (61, 40), (10, 0, 40, 40)),
        ({"crop": 0.875}, (40, 40), (2, 2, 35, 35)),
        ({"fit": "stretch"}, (40, 60), (0, 0, 40, 60)),
    ],
)
def test_resize_region(args, size, want):
    op = geometry.Resize(**args)
    op.bind((3, 16, 16))
    assert each_region(op.region({}, *(torch.tensor([float(v)]).double() for v in size))) == [want]


def test_random_crop():
    op = geometry.RandomCrop(padding=3)
    op.bind((3, 10, 12))
    x = unit(pixels(50, 3, 10, 12))
    draw = Draw(0, 0, torch.arange(50))
    params = op.params(draw.uniforms(op.uniforms()))
    assert set(params["top"].tolist()) == set(params["left"].tolist()) == set(range(7))
    got = op.apply(x, params, draw)
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3))
    for i in range(50):
        top, left = int(params["top"][i]), int(params["left"][i])
        assert torch.equal(got[i], padded[i, :, top : top + 10, left : left + 12])


# Colour. float32 rounding alone, a few times over; the mean of contrast is taken over values rounded to 2**-16.
COLOUR = 2e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_against_torchvision(channels):
    x = unit(pixels(8, channels, 15, 17))
    factors = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.0, 1.3, 1.8, 3.0])
    bright, contrast = color.jitter_brightness(x, factors), color.jitter_contrast(x, factors)
    for i, f in enumerate(factors.tolist()):
        torch.testing.assert_close(bright[i], tv.adjust_brightness(x[i], f), rtol=0, atol=COLOUR)
        torch.testing.assert_close(contrast[i], tv.adjust_contrast(x[i], f), rtol=0, atol=COLOUR)


def test_saturation_hue_against_torchvision():
    x = unit(pixels(9, 3, 15, 17))
    x[8] = x[8, :1]  # grey: no hue
    x[7, :, :5] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    x[7, :, 5:9] = torch.tensor([0.5, 0.5, 0.2])[:, None, None]
    factors = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.0, 1.3, 1.8, 3.0, 0.5])
    turns = torch.tensor([-0.5, -0.3, -0.05, 0.0, 0.1, 0.2, 0.4, 0.5, 0.3])
    saturation, hue = color.jitter_saturation(x, factors), color.jitter_hue(x, turns)
    for i in range(9):
        torch.testing.assert_close(saturation[i], tv.adjust_saturation(x[i], float(factors[i])), rtol=0, atol=COLOUR)
        torch.testing.assert_close(hue[i], tv.adjust_hue(x[i], float(turns[i])), rtol=0, atol=COLOUR)


def test_color_jitter_order_of_steps():
    x = unit(pixels(20, 3, 9, 9))
    op = color.ColorJitter(0.8, 0.8, 0.8, 0.2)
    draw = Draw(0, 0, torch.arange(20))
    params = op.params(draw.uniforms(dict.fromkeys(op.uniforms(), 1)))
    got = op.apply(x, params, draw)
    for i in range(20):
        want = tv.adjust_brightness(x[i], float(params["brightness"][i]))
        want = tv.adjust_contrast(want, float(params["contrast"][i]))
        want = tv.adjust_saturation(want, float(params["saturation"][i]))
        want = tv.adjust_hue(want, float(params["hue"][i]))
        torch.testing.assert_close(got[i], want, rtol=0, atol=2e-4)  # a hue of a nearly grey pixel magnifies rounding
    assert torch.equal(x, unit(pixels(20, 3, 9, 9)))  # left as it was


def test_color_jitter_factor_ranges():
    op = color.ColorJitter(0.4, 1.5, 0.8, 0.1)
    params = op.params(Draw(0, 0, torch.arange(20_000)).uniforms(op.uniforms()))
    for key, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0, 2.5),
        ("saturation", 0.2, 1.8),
        ("hue", -0.1, 0.1),
    ):
        v = (params[key].double().sort().values - low) / (high - low)
        assert float((v - torch.linspace(0, 1, len(v)).double()).abs().max()) < 1.95 / math.sqrt(len(v))


def test_exact_mean_ignores_pixel_order():
    x = torch.rand(3, 1, 300, 200)
    shuffled = x.flatten(2)[:, :, torch.randperm(60_000)].view_as(x)
    assert torch.equal(color.exact_mean(x), color.exact_mean(shuffled))
    torch.testing.assert_close(color.exact_mean(x).flatten(), x.flatten(1).mean(1), rtol=0, atol=2.0**-16)


def test_grayscale_solarize_flips_against_torchvision():
    x = unit(pixels(3, 3, 9, 11))
    none = Draw(0, 0, torch.arange(3))
    torch.testing.assert_close(color.Grayscale().apply(x, {}, none), tv.rgb_to_grayscale(x, 3), rtol=0, atol=1e-6)
    assert torch.equal(color.Solarize(0.4).apply(x, {}, none), tv.solarize(x, 0.4))
    assert torch.equal(geometry.HorizontalFlip().apply(x, {}, none), tv.horizontal_flip(x))
    assert torch.equal(geometry.VerticalFlip().apply(x, {}, none), tv.vertical_flip(x))


# Blur: pixels and weights are rounded to 12 bits. 70 x 20 takes the path of large pictures.


@pytest.mark.parametrize("size", [(32, 32), (9, 12), (70, 20), (5, 4)])
def test_blur_against_torchvision(size):
    x = unit(pixels(5, 3, *size))
    sigmas = torch.tensor([0.1, 0.3, 0.7, 1.0, 1.3]).double()
    radius = 3
    got = blur(x, gaussian(sigmas, radius))
    for i, sigma in enumerate(sigmas.tolist()):
        want = tv.gaussian_blur(x[i], [2 * radius + 1] * 2, [sigma, sigma])
        torch.testing.assert_close(got[i], want, rtol=0, atol=0.25 * LEVEL)


def test_blur_paths_are_bit_identical(monkeypatch):
    from sslcli.views.images import resample as module

    x, kernel = unit(pixels(6, 3, 40, 40)), gaussian(torch.linspace(0.1, 2, 6).double(), 6)
    dense = blur(x, kernel)
    got = module._slide((x * 4096).round(), kernel, 3).mul(2.0**-12).round()
    assert torch.equal(dense, module._slide(got, kernel, 2) * 2.0**-24)


def test_blur_constant_image_and_wide_kernel():
    x = torch.full((2, 1, 4, 4), 0.25)
    torch.testing.assert_close(blur(x, gaussian(torch.tensor([2.0, 9.0]).double(), 9)), x, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "top"), [(224, 2.0), (64, 2.0), (32, 1.0), (8, 0.25), (2, 0.1)])
def test_blur_auto_on_small_images(side, top):
    op = color.GaussianBlur()
    op.bind((3, side, side))
    assert op.range == (0.1, top)
    assert op.radius == max(1, math.ceil(3 * top))


# Affine


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (10, 14)])
def test_affine_against_torchvision(size):
    n = 12
    x = unit(pixels(n, 1, *size))
    g = torch.Generator().manual_seed(1)
    angle, shear = (torch.rand(n, generator=g).double() * 80 - 40 for _ in range(2))
    scale = torch.rand(n, generator=g).double() + 0.5
    move = torch.randint(-3, 4, (n, 2), generator=g).double()  # torchvision moves by whole pixels
    got = geometry.affine(
        x,
        geometry.affine_matrix(angle.deg2rad(), shear.deg2rad().tan(), scale),
        move / torch.tensor([size[1], size[0]]),
    )
    for i in range(n):
        want = tv.affine(
            x[i],
            float(angle[i]),
            [int(v) for v in move[i]],
            float(scale[i]),
            [float(shear[i]), 0.0],
            InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(got[i], want, rtol=0, atol=5e-5)  # torchvision's grid is float32 throughout


def test_affine_parameters():
    op = geometry.RandomAffine(degrees=20, translate=0.125, scale=(0.8, 1.2), shear=17)
    p = op.params(Draw(0, 0, torch.arange(5000)).uniforms(op.uniforms()))
    assert 0.12 < float(p["move"].max()) <= 0.125
    assert -0.125 <= float(p["move"].min()) < -0.12
    det = p["matrix"][:, 0, 0] * p["matrix"][:, 1, 1] - p["matrix"][:, 0, 1] * p["matrix"][:, 1, 0]
    scale = (1 / det).sqrt()  # rotation and shear keep the area
    assert 0.8 <= float(scale.min()) < 0.805
    assert 1.195 < float(scale.max()) <= 1.2
    still = geometry.RandomAffine()
    x = unit(pixels(3, 1, 8, 8))
    u = Draw(0, 0, torch.arange(3)).uniforms(still.uniforms())
    torch.testing.assert_close(still.apply(x, still.params(u), Draw(0, 0, torch.arange(3))), x, rtol=0, atol=1e-6)


def test_intensity_and_noise():
    x = torch.full((4000, 1, 2, 2), 0.5)
    draw = Draw(0, 0, torch.arange(4000))
    op = color.RandomIntensity(0.4)
    y = op.apply(x, op.params(draw.uniforms(op.uniforms())), draw)
    assert torch.equal(y.flatten(1).amin(1), y.flatten(1).amax(1))  # one factor a picture
    assert 0.3 <= float(y.min()) < 0.301
    assert 0.699 < float(y.max()) <= 0.7
    noise = color.Noise(0.1).apply(x, {}, draw) - x
    assert abs(float(noise.mean())) < 4 * 0.1 / math.sqrt(16_000)
    assert abs(float(noise.std()) - 0.1) < 4 * 0.1 / math.sqrt(32_000)
    assert len(noise.unique()) > 15_000
