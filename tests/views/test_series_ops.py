"""Series ops: results on known series, preserved NaN, and random parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sslcli.errors import RequestError
from sslcli.rng import Draw
from sslcli.views import series as ops
from sslcli.views.op import BadValue, Op


def apply(op: Op, x: Tensor, seed: int = 0) -> Tensor:
    op.bind(tuple(x.shape[1:]))
    draw = Draw(seed, 0, torch.arange(len(x)))
    return op.apply(x, op.params(draw.uniforms(op.uniforms())), draw)


def ramp(n: int, c: int, t: int) -> Tensor:
    """Each value encodes its position: 1000 channel + step."""
    return (torch.arange(t)[None, None] + 1000.0 * torch.arange(c)[None, :, None]).expand(n, c, t).clone()


def test_valid_length():
    x = torch.zeros(4, 2, 5)
    x[0, :, 3:] = math.nan
    x[1, 0, 3:] = math.nan  # another channel still has values
    x[2] = math.nan
    x[3, :, 1] = math.nan  # a hole is not the end
    assert ops.valid_length(x).tolist() == [3, 5, 0, 5]


def test_crop_resampled_is_linear_in_window():
    x = ramp(300, 2, 40)
    y = apply(ops.RandomCrop((0.25, 0.75)), x)
    assert y.shape == x.shape
    step = y[:, 0].diff(dim=1)
    torch.testing.assert_close(step, step[:, :1].expand_as(step), rtol=0, atol=2e-5)
    window = (y[:, 0, -1] - y[:, 0, 0]) + 1  # first and last step of the window are first and last of the output
    torch.testing.assert_close(window, window.round(), rtol=0, atol=1e-4)
    assert (float(window.min()), float(window.max())) == (10, 30)
    start = y[:, 0, 0]
    assert float(start.min()) == 0
    assert float((start + window).max()) == 40
    torch.testing.assert_close(y[:, 1], y[:, 0] + 1000, rtol=0, atol=1e-3)  # channels move together


def test_crop_of_full_length_is_identity():
    x = torch.randn(5, 3, 17)
    x[1, :, 9:] = math.nan
    x[2, 1, 4] = math.nan
    y = apply(ops.RandomCrop(1.0), x)
    assert torch.equal(y.nan_to_num(-99.0), x.nan_to_num(-99.0))


def test_crop_keeps_padding():
    x = ramp(50, 1, 40)
    x[:, :, 20:] = math.nan
    full = apply(ops.RandomCrop((0.5, 1.0)), x)
    assert torch.equal(ops.valid_length(full), torch.full((50,), 20))
    assert not full[:, :, :20].isnan().any()
    half = apply(ops.RandomCrop((0.5, 1.0), size=0.5), x)
    assert half.shape == (50, 1, 20)
    assert torch.equal(ops.valid_length(half), torch.full((50,), 10))


def test_crop_keeps_missing_values():
    x = ramp(200, 1, 30)
    x[:, :, 14] = math.nan
    y = apply(ops.RandomCrop((0.4, 0.6)), x)
    near = (y - 14).abs() < 1  # a value between 13 and 15 would have been made from the hole
    assert not near.any()
    assert y.isnan().any()


def test_crop_without_resampling_slices():
    x = ramp(300, 2, 40)
    op = ops.RandomCrop(0.25, resample=False)
    y = apply(op, x)
    assert op.out_shape((2, 40)) == (2, 12)  # 10 steps, to the nearest multiple of 4
    assert y.shape == (300, 2, 12)
    assert torch.equal(y, y[:, :, :1] + torch.arange(12))
    assert set(y[:, 0, 0].tolist()) == set(range(29))
    x[:, :, 5:] = math.nan
    short = apply(ops.RandomCrop(8, resample=False), x)
    assert torch.equal(short[:, 0, :5], torch.arange(5.0).expand(300, 5))
    assert short[:, :, 5:].isnan().all()


@pytest.mark.parametrize(
    "args", [{"length": [0.5, 1.0], "resample": False}, {"length": 2.0}, {"length": 9, "resample": False, "size": 4}]
)
def test_crop_rejects_invalid_parameters(args):
    with pytest.raises(BadValue):
        ops.RandomCrop(**args)


def test_jitter_and_scale():
    x = torch.ones(2000, 3, 4)
    x[:, :, 3] = math.nan
    noise = apply(ops.Jitter(0.2), x)[:, :, :3] - 1
    assert abs(float(noise.mean())) < 4 * 0.2 / math.sqrt(18_000)
    assert abs(float(noise.std()) - 0.2) < 4 * 0.2 / math.sqrt(36_000)
    factor = apply(ops.Scale(0.3), x)
    assert torch.equal(factor[:, :, 0], factor[:, :, 2])  # one for a channel ...
    assert float((factor[:, 0, 0] - factor[:, 1, 0]).abs().min()) > 0  # ... and another for the next
    assert abs(float(factor[:, :, 0].std()) - 0.3) < 4 * 0.3 / math.sqrt(12_000)
    for y in (apply(ops.Jitter(0.2), x), factor):
        assert torch.equal(y.isnan(), x.isnan())


def test_time_mask():
    x = torch.ones(1000, 2, 50)
    x[::2, :, 30:] = math.nan
    x[:, :, 3] = math.nan
    y = apply(ops.TimeMask(ratio=0.2), x)
    assert torch.equal(y.isnan(), x.isnan())
    hidden = y[:, 0] == 0
    assert torch.equal(hidden, y[:, 1] == 0)  # all channels at once
    seen = hidden | x[:, 0].isnan() & (torch.arange(50) == 3)  # the hole may stand within a stretch
    count = hidden.sum(1)
    assert int(count[1::2].max()) in (9, 10)
    assert int(count[::2].max()) in (5, 6)
    assert (seen.int().diff(dim=1) == 1).sum(1).max() <= 2
    long = apply(ops.TimeMask(ratio=1.0, spans=3), x)
    assert float((long == 0).double().mean()) > float((y == 0).double().mean()) * 3


def test_permutation():
    x = ramp(500, 2, 23)
    x[::2, :, 17:] = math.nan
    y = apply(ops.Permutation(4), x)
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(
        y.nan_to_num(9e9).sort(-1).values, x.nan_to_num(9e9).sort(-1).values
    )  # nothing lost, nothing twice
    cuts = (y[1::2, 0].diff(dim=1) != 1).sum(1)
    assert int(cuts.max()) == 3
    assert len({tuple(row) for row in y[1::2, 0].tolist()}) == 24  # every order of 4
    assert not torch.equal(y, x)


def test_all_padding_is_unchanged():
    x = torch.full((3, 2, 8), math.nan)
    for op in (ops.RandomCrop(), ops.Jitter(), ops.Scale(), ops.TimeMask(), ops.Permutation()):
        assert apply(op, x).isnan().all()


def test_image_ops_are_rejected_for_series():
    from sslcli.data.dataset import ArraySource, Dataset
    from sslcli.views import Views

    data = Dataset("s", "series", (1, 8), ArraySource(torch.zeros(2, 1, 8)), None)
    with pytest.raises(RequestError, match="requires data of modality image") as caught:
        Views({"global": 1}, {"global": {"horizontal_flip": {}}}, data)
    assert caught.value.hint
