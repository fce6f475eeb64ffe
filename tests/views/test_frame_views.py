"""Views of clips: one region, mirror and change of color for all frames, windows of frames, and what errors are compared with."""

from __future__ import annotations

import io

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views import Views
from sslcli.views.modality import modality
from sslcli.views.preview.film import Film
from sslcli.views.video.ops import FrameWindow

SHAPE = (1, 6, 16, 16)


def clips(n: int = 5, channels: int = 1) -> tuple[torch.Tensor, Dataset]:
    shape = (channels, *SHAPE[1:])
    x = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = Continuous((0.3,) * channels, (0.2,) * channels)
    return x, Dataset("clips", modality="frames", shape=shape, train=ArraySource(x), test=None, values=values)


def views(recipe: dict, x: torch.Tensor, data: Dataset, epoch: int = 0) -> torch.Tensor:
    made = Views({"global": 1}, {"global": recipe}, data)
    (out,) = made(x, Draw(0, epoch, torch.arange(len(x))))
    assert tuple(out.shape[1:]) == made.shapes[0]
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_clean_views_are_normalized_clips(channels):
    x, data = clips(channels=channels)
    (out,) = Views({"clean": 1}, {}, data)(x, Draw(0, 0, torch.arange(len(x))))
    torch.testing.assert_close(out, (x / 255 - 0.3) / 0.2)


def test_all_frames_of_a_clip_change_alike():
    """A clip whose frames are equal stays one; two clips change differently."""
    x, data = clips(channels=3)
    still = x[:, :, :1].expand_as(x).contiguous()
    recipe = {
        "random_resized_crop": {"scale": [0.2, 0.6]},
        "horizontal_flip": {"p": 0.5},
        "color_jitter": {"brightness": 0.5, "contrast": 0.5},
        "gaussian_blur": {"p": 0.5},
    }
    out = views(recipe, still, data)
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))
    same = still[:1].expand_as(still).contiguous()
    made = views(recipe, same, data)
    assert len({tuple(clip.flatten().tolist()) for clip in made}) == len(made)


def test_pixel_ops_equal_those_of_images():
    """A crop, mirror and change of brightness of a clip of one frame are those of an image."""
    x, data = clips()
    recipe = {
        "random_resized_crop": {"scale": [0.2, 0.6]},
        "horizontal_flip": {"p": 0.5},
        "color_jitter": {"brightness": 0.5, "contrast": 0.0},
    }
    frames = x[:, :, :1].contiguous()
    one = Dataset(
        "one", modality="frames", shape=(1, 1, 16, 16), train=ArraySource(frames), test=None, values=data.values
    )
    image = Dataset(
        "images", modality="image", shape=(1, 16, 16), train=ArraySource(x[:, :, 0]), test=None, values=data.values
    )
    expected = views(recipe, x[:, :, 0].contiguous(), image)
    torch.testing.assert_close(views(recipe, frames, one)[:, :, 0], expected, rtol=1e-5, atol=1e-5)


def test_views_do_not_depend_on_the_batch():
    x, data = clips()
    recipe = {"random_resized_crop": {}, "frame_window": {}, "color_jitter": {"brightness": 0.4}, "reverse": {}}
    made = Views({"global": 2}, {"global": recipe}, data)
    whole = made(x, Draw(0, 3, torch.arange(5)))
    for i in range(5):
        for a, b in zip(whole, made(x[i : i + 1], Draw(0, 3, torch.tensor([i]))), strict=True):
            assert torch.equal(a[i], b[0])


def test_a_window_holds_frames_in_their_order():
    op = FrameWindow(length=[0.5, 1.0])
    op.bind((1, 8, 4, 4))
    u = {key: torch.rand(200, 1, generator=torch.Generator().manual_seed(1)) for key in ("length", "start")}
    frames = op.params(u)["frames"]
    assert frames.shape == (200, 8)
    assert (frames.diff(dim=1) >= 0).all()
    assert frames.min() == 0
    assert frames.max() == 7
    spans = frames[:, -1] - frames[:, 0] + 1
    assert {4, 8} <= set(spans.tolist()) <= set(range(4, 9))
    x = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(200, 1, 8, 2, 2)
    assert torch.equal(op.apply(x, {"frames": frames}, None)[:, 0, :, 0, 0].long(), frames)
    half = FrameWindow(length=1.0, size=0.5)
    half.bind((1, 8, 4, 4))
    assert half.out_shape((1, 8, 4, 4)) == (1, 4, 4, 4)
    assert half.params({k: v[:1] for k, v in u.items()})["frames"].tolist() == [[1, 3, 5, 7]]


def test_a_crop_must_come_first():
    x, data = clips()
    with pytest.raises(RequestError, match="must be the first op"):
        views({"reverse": {}, "random_resized_crop": {}}, x, data)


def test_simple_predictions_and_their_errors():
    """Of a clip whose frames are 0, 1, 2, ... (in hundredths) with four given ones."""
    values = Continuous((0.1,), (0.5,))
    pixels = (torch.arange(6.0) / 100).view(1, 1, 6, 1, 1).expand(1, 1, 6, 3, 2)
    x = (pixels - 0.1) / 0.5
    visible = torch.zeros_like(x, dtype=torch.bool)
    visible[:, :, :4] = True
    kind = modality("frames")
    guesses = kind.trivial(x, visible, values)
    natural = {name: (guess * 0.5 + 0.1)[0, 0, 4:, 0, 0] for name, guess in guesses.items()}
    torch.testing.assert_close(natural["black"], torch.zeros(2))
    torch.testing.assert_close(natural["last"], torch.full((2,), 0.03))
    torch.testing.assert_close(natural["average"], torch.full((2,), 0.015))
    error = kind.errors(guesses["last"], x, values)["frame_error"][0, 0, 4:, 0, 0]
    torch.testing.assert_close(error, torch.tensor([6 * 0.01**2, 6 * 0.02**2]))  # sums over 3 x 2 pixels
    holes = torch.ones_like(visible)
    holes[:, :, 0] = False
    torch.testing.assert_close(kind.trivial(x, holes, values)["last"][:, :, 0], x[:, :, 1])


def test_films_are_strips_and_animations():
    from PIL import Image

    film = Film(torch.rand(1, 12, 16, 20))
    assert film.size == (10 * 22 - 2, 16)
    assert film.strip().shape == (1, 16, 218)
    with Image.open(io.BytesIO(film.animation())) as gif:
        assert gif.n_frames == 12
        assert gif.size == (80, 64)
    assert film.html().startswith('<img class="preview" src="data:image/gif;base64,')
    assert Film(torch.rand(3, 2, 200, 100)).reduce().frames.shape == (3, 2, 96, 48)
    same = film.difference(Film(film.frames))
    assert same.text() == "heat map of 218 x 16 values"
    assert not same.values.any()
    assert film.importance(torch.rand(6, 4, 5)).frames.shape == (3, 12, 16, 20)
    assert "12 frames" in film.text()


def test_corruptions_of_clips():
    from sslcli.views.corruption import corrupt
    from sslcli.views.video.corruptions import CORRUPTIONS

    x = torch.rand(4, 3, 10, 8, 8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(4)
    for name, corruption in CORRUPTIONS.items():
        changes = []
        for strength in (1, 3, 5):
            out = corrupt(corruption, name, x, strength, ids, 0)
            assert out.shape == x.shape, name
            assert 0 <= out.min() <= out.max() <= 1, name
            assert torch.equal(out[2:], corrupt(corruption, name, x[2:], strength, ids[2:], 0)), name
            changes.append(float((out - x).abs().mean()))
        assert 0 < changes[0] <= changes[1] <= changes[2], (name, changes)
    frozen = corrupt(CORRUPTIONS["frozen_frames"], "frozen_frames", x, 5, ids, 0)
    assert torch.equal(frozen[:, :, 0], x[:, :, 0])
    for t in range(1, 10):
        same, held = (frozen[:, :, t] == other for other in (x[:, :, t], frozen[:, :, t - 1]))
        assert (same.flatten(1).all(1) | held.flatten(1).all(1)).all()
    black = corrupt(CORRUPTIONS["black_frames"], "black_frames", x, 5, ids, 0)
    lost = (black == 0).flatten(3).all(3).all(1)
    assert 0.3 < float(lost.float().mean()) < 0.9
