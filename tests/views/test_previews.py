"""Previews: what is drawn, in which range, and that text is escaped."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.nn.values import Continuous
from sslcli.views import previews
from sslcli.views.preview import Curves, HeatMap, Picture, Preview, Strip, Text, align, heat
from sslcli.views.preview.curves import round_numbers


def pixels(preview: Preview, width: int, height: int) -> np.ndarray:
    image = preview.image(width, height)
    assert image.width <= width
    assert image.height <= height
    return np.asarray(image.convert("RGB")).astype(int)


def test_picture_is_enlarged_by_an_integer():
    x = torch.tensor([[[0, 255], [128, 64]]], dtype=torch.uint8)
    page = pixels(Picture(x), 7, 9)
    assert page.shape == (6, 6, 3)
    assert np.array_equal(page[::3, ::3, 0], x[0].numpy())


def test_views_of_images_are_restored():
    x = torch.randint(0, 256, (3, 2, 5, 4), dtype=torch.uint8)
    values = Continuous((0.4, 0.6), (0.2, 0.3))
    dataset = Dataset("d", "image", (2, 5, 4), ArraySource(x), None, values=values)
    normalized = (x / 255 - torch.tensor(values.mean).view(-1, 1, 1)) / torch.tensor(values.std).view(-1, 1, 1)
    for preview, sample in zip(previews(dataset, normalized), x, strict=True):
        assert isinstance(preview, Picture)
        assert torch.equal((preview.pixels * 255).round().to(torch.uint8), sample)
    assert len(previews(dataset, normalized[:, :, :2])) == 3  # of another size


def test_channels_of_other_scales_are_drawn_in_their_standard_deviations():
    x = torch.randn(1, 2, 9)
    dataset = Dataset("d", "series", (2, 9), ArraySource(x), None, values=Continuous((0.0, 50.0), (1.0, 8.0)))
    (shown,) = previews(dataset, x)
    assert isinstance(shown, Curves)
    assert torch.equal(shown.values, x[0])
    assert shown.text() == "series of 9 steps, 2 channels, each in its standard deviations"


def test_views_of_series_are_restored():
    x = torch.randn(2, 2, 9)
    x[0, :, 6:] = torch.nan
    dataset = Dataset("d", "series", (2, 9), ArraySource(x), None, values=Continuous((1.0, -2.0), (3.0, 0.5)))
    shown = previews(dataset, (x - torch.tensor([[1.0], [-2.0]])) / torch.tensor([[3.0], [0.5]]))
    for preview, sample in zip(shown, x, strict=True):
        assert isinstance(preview, Curves)
        torch.testing.assert_close(preview.values, sample, equal_nan=True)
        assert preview.text() == "series of 9 steps, 2 channels"


def test_curve_passes_through_its_values():
    page = pixels(Curves(torch.tensor([[0.0, 1.0]]), limits=(-1.0, 2.0)), 90, 60)
    ink = page[..., 2] - page[..., 0] > 40  # blue
    assert ink[38:42, 1:5].any()  # 0 is at two thirds of the height, 1 at one third
    assert ink[18:22, -5:-1].any()
    assert not ink[:15].any()
    assert not ink[45:].any()


def test_curve_of_one_step_is_a_dot():
    assert (pixels(Curves(torch.tensor([[1.0]])), 60, 40) < 200).any()


def test_aligned_curves_share_their_axes():
    a, b, c = align([Curves(torch.zeros(1, 20)), Curves(torch.ones(1, 10)), Text("t")])
    assert isinstance(a, Curves)
    assert isinstance(b, Curves)
    assert (a.limits, a.steps) == (b.limits, b.steps) == ((-0.06, 1.06), 20)
    assert c == Text("t")
    assert (pixels(b, 100, 50)[:, 52:] > 250).all()  # drawn over half of the width


def test_reduced_series_keeps_length_and_extremes():
    x = torch.zeros(1, 10_007)
    x[0, 5000] = 9.0
    small = Curves(x).reduce()
    assert small.values.shape[1] <= 4 * Curves.cell[0]
    assert small.length == 10_007
    assert float(small.values.max()) == 9.0
    peak = (pixels(small, 200, 60)[:30].min(axis=(0, 2)) < 150).nonzero()[0].mean()
    assert peak == pytest.approx(100, abs=2)


def test_errors_of_pictures_share_a_scale():
    x = Picture(torch.zeros(1, 4, 4))
    small, large = align([x.difference(Picture(torch.full((1, 4, 4), v))) for v in (0.25, 0.5)])
    assert isinstance(small, HeatMap)
    expected = (heat(torch.tensor([0.5, 1.0])) * 255).round().T.tolist()
    assert [pixels(p, 4, 4)[0, 0].tolist() for p in (small, large)] == expected


def test_overlay_of_a_picture_has_its_size():
    colors = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]])  # (3, 1, 2)
    over = Picture(torch.rand(1, 4, 8)).overlay(colors)
    assert over.pixels[:, :, :4].max() == 0
    assert over.pixels[:, :, 4:].min() == 1


def test_importance_of_a_picture_is_interpolated():
    shown = Picture(torch.rand(1, 4, 8)).importance(torch.tensor([[2.0, 4.0]])).pixels
    torch.testing.assert_close(shown[:, 0, [0, 7]], heat(torch.tensor([0.0, 1.0])))
    assert bool((shown[2, 0].diff() <= 0).all())
    assert len(shown[2, 0].unique()) > 3


def test_overlay_of_a_series_is_behind_it():
    over = Curves(torch.full((1, 40), torch.nan)).importance(torch.tensor([0.0, 1.0]))
    page = pixels(over, 100, 50).sum(-1)
    assert page[:, 4:20].min() > 700
    assert page[:, 80:96].max() < 500


def test_overlay_of_any_other_kind_is_a_strip():
    strip = Text("words").overlay(heat(torch.tensor([0.0, 1.0])))
    assert isinstance(strip, Strip)
    page = pixels(strip, 100, 60).sum(-1)
    assert page[-4:, :40].min() > 700
    assert page[-4:, 60:].max() < 200


@pytest.mark.parametrize("text", ["", "a", "word " * 500, "x" * 500, "a\x1b[31m\n\u202eb", "\udcff"])
def test_text_fits(text):
    assert pixels(Text(text), 120, 60).shape == (60, 120, 3)


def test_markup_in_text_is_escaped():
    assert Text('<img src=x onerror="1">\u202e').html() == (
        '<p class="preview">&lt;img src=x onerror=&quot;1&quot;&gt;\\u202e</p>'
    )


def test_html_of_a_picture_is_self_contained():
    markup = Picture(torch.zeros(1, 8, 8)).html()
    prefix = '<img class="preview" src="data:image/png;base64,'
    assert markup.startswith(prefix)
    with Image.open(io.BytesIO(base64.b64decode(markup[len(prefix) :].partition('"')[0]))) as image:
        assert image.size == (8, 8)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 5, 10]), (-1.1, 1.1, [-1, 0, 1]), (0, 0.3, [0, 0.1, 0.2, 0.3]), (1, 1, []), (0, float("inf"), [])],
)
def test_ticks_are_round(low, high, expected):
    assert round_numbers(low, high, 4) == pytest.approx(expected)
