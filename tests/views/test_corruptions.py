from __future__ import annotations

import math

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.nn.values import Continuous
from sslcli.views import corruption
from sslcli.views.images.corruptions import CORRUPTIONS as IMAGE_CORRUPTIONS
from sslcli.views.images.corruptions import blur, rotation, shifted, translation
from sslcli.views.modality import modality
from sslcli.views.signals.corruptions import CORRUPTIONS as SERIES_CORRUPTIONS

IDS = torch.tensor([3, 11, 40, 41])


def corrupt(x: torch.Tensor, name: str, strength: int, ids: torch.Tensor, seed: int) -> torch.Tensor:
    return corruption.corrupt((IMAGE_CORRUPTIONS | SERIES_CORRUPTIONS)[name], name, x, strength, ids, seed)


def smooth(n: int = 4, c: int = 3, h: int = 16, w: int = 20) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return blur(torch.rand(n, c, h, w, generator=g), 1.5)


def waves(n: int = 4, c: int = 2, t: int = 50) -> torch.Tensor:
    x = torch.randn(n, c, t, generator=torch.Generator().manual_seed(1)).cumsum(dim=2)
    x = (x - x.mean(dim=2, keepdim=True)) / x.std(dim=2, keepdim=True)
    x[1, :, 40:] = math.nan
    return x


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 16, 20), (1, 8, 8), (4, 9, 7)])
def test_corrupted_image_keeps_shape_and_range(name, shape):
    x = smooth(4, *shape)
    for strength in (1, 3, 5):
        y = corrupt(x, name, strength, IDS, 0)
        assert y.shape == x.shape
        assert y.min() >= 0
        assert y.max() <= 1
        torch.testing.assert_close(y * 255, (y * 255).round(), atol=1e-3, rtol=0)  # of 8 bits


@pytest.mark.parametrize("name", [*IMAGE_CORRUPTIONS, *SERIES_CORRUPTIONS])
def test_corruption_depends_on_the_sample_only(name):
    x = smooth() if name in IMAGE_CORRUPTIONS else waves()
    whole = corrupt(x, name, 3, IDS, 5)
    torch.testing.assert_close(corrupt(x[2:3], name, 3, IDS[2:3], 5), whole[2:3], equal_nan=True)
    if name not in ("gaussian_blur", "brightness", "contrast", "pixelate", "jpeg"):
        others = [corrupt(x, name, 3, IDS, seed).nan_to_num() for seed in range(6, 12)]
        assert any(not torch.equal(other, whole.nan_to_num()) for other in others)
        same = corrupt(x[:1].repeat(16, *([1] * (x.ndim - 1))), name, 3, torch.arange(16), 5)
        assert any(not torch.equal(same[0], other) for other in same[1:])  # another sample, other numbers


@pytest.mark.parametrize("name", [*IMAGE_CORRUPTIONS, *SERIES_CORRUPTIONS])
def test_corruption_distance_grows_with_severity(name):
    x = smooth(4, 3, 32, 32) if name in IMAGE_CORRUPTIONS else waves(40, t=100)
    ids = torch.arange(len(x))
    far = [float((corrupt(x, name, s, ids, 0) - x).nan_to_num().square().mean()) for s in range(1, 6)]
    assert far[0] > 0
    if name != "time_shift":  # a wave that is moved far enough comes back
        assert far == sorted(far)


@pytest.mark.parametrize("name", SERIES_CORRUPTIONS)
def test_corruption_keeps_padding(name):
    x = waves()
    for strength in range(1, 6):
        assert torch.equal(corrupt(x, name, strength, IDS, 0).isnan(), x.isnan())


def test_corruption_of_known_cases():
    grey = torch.full((4, 1, 64, 64), 0.5)
    noisy = corrupt(grey, "gaussian_noise", 1, IDS, 0) - grey
    assert float(noisy.std()) == pytest.approx(0.04, rel=0.03)
    shot = corrupt(grey, "shot_noise", 1, IDS, 0)  # Poisson: variance = mean / light
    assert float(shot.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(shot.var()) == pytest.approx(0.5 / 200, rel=0.05)
    salt = corrupt(grey, "impulse_noise", 5, IDS, 0)
    assert float(((salt == 0) | (salt == 1)).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert corrupt(grey, "brightness", 2, IDS, 0).unique().tolist() == pytest.approx([round(0.7 * 255) / 255])
    grey = torch.full((4, 1, 16, 16), 102 / 255)
    for flat in ("gaussian_blur", "motion_blur", "contrast", "pixelate", "rotation", "translation"):
        torch.testing.assert_close(corrupt(grey, flat, 5, IDS, 0), grey)
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    torch.testing.assert_close(corrupt(step, "contrast", 1, IDS[:1], 0).unique(), torch.tensor([38, 217]) / 255)
    line = torch.tensor([0, 40, 80, 120]).view(1, 1, 1, 4) / 255  # three where four were: two share one
    assert (corrupt(line.expand(1, 1, 4, 4), "pixelate", 1, IDS[:1], 0)[0, 0, 0] * 255).round().tolist() == [
        20,
        20,
        80,
        120,
    ]
    lost = corrupt(torch.ones(4, 1, 2000), "dropout", 2, IDS, 0)
    assert float((lost == 0).float().mean()) == pytest.approx(0.12, abs=0.01)
    rolled = corrupt(torch.arange(100.0).view(1, 1, 100), "time_shift", 2, IDS[:1], 0)
    assert rolled[0, 0, 0] in (92, 8)


def test_blur_matches_torchvision():
    from torchvision.transforms.v2 import functional as tv

    x = smooth()
    ours, theirs = blur(x, 1.3), tv.gaussian_blur(x, [9, 9], [1.3, 1.3])
    torch.testing.assert_close(
        ours[..., 5:-5, 5:-5], theirs[..., 5:-5, 5:-5], atol=1e-5, rtol=0
    )  # edges: repeated, mirrored


def test_rotation_and_translation_match_torchvision():
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    x = smooth(2, 1, 32, 24)
    moved = shifted(x, torch.full((2,), 3.0), torch.full((2,), -2.0))
    torch.testing.assert_close(moved[..., :-2, 3:], x[..., 2:, :-3], atol=1e-5, rtol=0)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    turned = rotation(x, 1, generators)
    ways = [float(torch.rand(1, generator=torch.Generator().manual_seed(i))) < 0.5 for i in range(2)]
    for image, ours, left in zip(x, turned, ways, strict=True):
        theirs = tv.rotate(image, 15 if left else -15, InterpolationMode.BILINEAR)
        other = tv.rotate(image, -15 if left else 15, InterpolationMode.BILINEAR)
        inside = slice(10, 22), slice(8, 16)
        near, far = (float((ours[0][inside] - y[0][inside]).abs().max()) for y in (theirs, other))
        assert min(near, far) < 1e-4
    assert translation(x, 0, generators).shape == x.shape


def test_jpeg_matches_pillow():
    import io

    import numpy as np
    from PIL import Image

    x = (smooth() * 255).round() / 255
    file = io.BytesIO()
    Image.fromarray((x[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "JPEG", quality=16)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    torch.testing.assert_close(corrupt(x, "jpeg", 3, IDS, 0)[0], expected)


def test_image_corruptions_take_normalized_views():
    empty = ArraySource(torch.empty(0))
    values = Continuous((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    dataset = Dataset("smooth", "image", (3, 16, 20), empty, None, values=values)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (values.mean, values.std))
    pixels = (smooth() * 255).round() / 255
    x = (pixels - mean) / std
    corruptions = modality("image").corruptions(dataset)
    assert list(corruptions) == list(IMAGE_CORRUPTIONS)
    z = corruption.corrupt(corruptions["fog"], "fog", x, 2, IDS, 0)
    torch.testing.assert_close(z * std + mean, corrupt(pixels, "fog", 2, IDS, 0), atol=1e-3, rtol=0)
