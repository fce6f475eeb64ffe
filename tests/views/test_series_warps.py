"""Views of sensors: what each keeps, and its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sslcli.views.op import BadValue
from sslcli.views.signals.steps import smooth_curves
from sslcli.views.signals.warps import FrequencyMask, MagnitudeWarp, Rotation, TimeWarp
from tests.views.test_series_ops import apply, ramp

WARPS = (Rotation, MagnitudeWarp, TimeWarp, FrequencyMask)


def holes(x: Tensor) -> Tensor:
    x = x.clone()
    x[::2, :, 17:], x[1, 0, 3] = math.nan, math.nan
    return x


@pytest.mark.parametrize("op", WARPS)
def test_padding_stays_and_parameters_are_checked(op):
    x = holes(torch.randn(40, 3, 23))
    y = apply(op(), x)
    assert torch.equal(y[::2].isnan(), x[::2].isnan())
    assert (y[1::2, 1:] != x[1::2, 1:]).any()
    assert apply(op(), torch.full((2, 3, 9), math.nan)).isnan().all()
    for one in ("angle", "ratio", "sigma"):
        if hasattr(op(), one):
            with pytest.raises(BadValue):
                op(**{one: -1})
    if hasattr(op(), "knots"):
        with pytest.raises(BadValue, match="knots"):
            op(knots=2.5)


def test_rotation_keeps_lengths_and_angles():
    x = torch.randn(500, 7, 5)
    y = apply(Rotation(angle=40), x)
    assert torch.equal(y[:, 6], x[:, 6]), "no third channel"
    for group in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(y[:, group].norm(dim=1), x[:, group].norm(dim=1))
    inner = (x[:, :3] * x[:, 3:6]).sum(1)
    torch.testing.assert_close(
        (y[:, :3] * y[:, 3:6]).sum(1), inner, atol=1e-5, rtol=1e-4
    )  # one rotation for all groups
    cosine = torch.nn.functional.cosine_similarity(x[:, :3], y[:, :3], dim=1)
    assert cosine.min() > math.cos(math.radians(40)) - 1e-4
    assert cosine.min() < math.cos(math.radians(35))
    axis = apply(Rotation(angle=180), torch.tensor([1.0, 0, 0]).view(1, 3, 1).repeat(4000, 1, 1)).mean(0)
    assert axis[1:].abs().max() < 0.05
    assert Rotation().bind((2, 9)) is not None


def test_magnitude_warp_is_a_smooth_factor():
    y = apply(MagnitudeWarp(sigma=0.3, knots=3), torch.ones(3000, 2, 21))
    assert abs(float(y[:, :, ::10].std()) - 0.3) < 0.01  # at the knots
    middle = (y[:, :, 0] + y[:, :, 10]) / 2
    torch.testing.assert_close(y[:, :, 5], middle)
    assert ((y[:, :, 1:11].diff(dim=2) > -1e-6).all(2) | (y[:, :, 1:11].diff(dim=2) < 1e-6).all(2)).all()


def test_smooth_curves_interpolate():
    curve = smooth_curves(torch.tensor([[1.0, 3.0, 2.0]]), 9)[0]
    wanted = [1 + 2 * (1 - math.cos(math.pi * t / 4)) / 2 for t in range(5)]
    wanted += [3 - (1 - math.cos(math.pi * t / 4)) / 2 for t in range(1, 5)]
    torch.testing.assert_close(curve, torch.tensor(wanted))
    assert smooth_curves(torch.tensor([[1.0, 3.0]]), 1).tolist() == [[1.0]]


def test_time_warp_moves_along_a_ramp():
    x = ramp(500, 1, 30)
    x[::2, :, 20:] = math.nan
    y = apply(TimeWarp(sigma=0.4), x)
    for rows, last in ((y[::2, 0, :20], 19), (y[1::2, 0], 29)):
        assert (rows[:, 0] == 0).all()
        torch.testing.assert_close(rows[:, -1], torch.full_like(rows[:, -1], last))
        assert (rows.diff(dim=1) > 0).all()
        assert 0.1 < (rows - torch.arange(last + 1)).abs().max() < last
    assert torch.equal(apply(TimeWarp(sigma=0.0), x).nan_to_num(-1), x.nan_to_num(-1))


def test_frequency_mask_removes_a_band():
    x = torch.randn(300, 2, 64) + 3
    y = apply(FrequencyMask(ratio=0.25), x)
    before, after = torch.fft.rfft(x).abs(), torch.fft.rfft(y).abs()
    gone = after < 5e-3
    assert torch.equal(gone[:, 0], gone[:, 1])
    torch.testing.assert_close(after[~gone], before[~gone], rtol=1e-3, atol=1e-3)
    assert not gone[:, :, 0].any()
    assert gone[:, 0].sum(1).max() == 8
    assert (gone[:, 0].int().diff(dim=1) == 1).sum(1).max() == 1
