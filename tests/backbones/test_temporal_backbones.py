"""Backbones with frames: padding, causality, shorter samples, spectrograms, frames as values and back, pooling."""

from __future__ import annotations

import math

import pytest
import torch

from sslcli.backbones.tcn import TCN
from sslcli.backbones.temporal.frames import FrameBackbone, pool_frames
from sslcli.backbones.temporal.gru import GRU
from sslcli.errors import RequestError

NETS = {
    "gru": lambda shape, **options: GRU(shape, width=8, **options),
    "tcn": lambda shape, **options: TCN(shape, width=8, depth=2, **options),
}
every_net = pytest.mark.parametrize("name", NETS)


def build(name: str, shape: tuple[int, ...], **options) -> FrameBackbone:
    torch.manual_seed(0)
    return NETS[name](shape, **options).eval()


@pytest.mark.parametrize("pool", ["mean", "max", "both", "last"])
@every_net
def test_padding_does_not_change_features(name, pool):
    network, x = build(name, (2, 13), pool=pool), torch.randn(3, 2, 13)
    padded = torch.cat([x[:, :, :9], torch.full((3, 2, 4), math.nan)], dim=2)
    torch.testing.assert_close(network(padded), network(x[:, :, :9]))
    assert network(x).shape == (3, network.dim)
    nothing = network(torch.full((1, 2, 13), math.nan))
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("stride", [1, 3])
@every_net
def test_frames_of_spectrograms_equal_those_of_series(name, stride):
    """A spectrogram (1, F, T) is a series of F channels."""
    series, spectrogram = build(name, (5, 13), stride=stride), build(name, (1, 5, 13), stride=stride)
    x = torch.randn(3, 5, 13)
    assert torch.equal(series.frames(x), spectrogram.frames(x[:, None]))
    assert series.frames(x).shape == (3, -(-13 // stride), 8) == (3, series.num_frames, series.frame_dim)


@pytest.mark.parametrize("shape", [(2, 13), (1, 5, 13)])
@pytest.mark.parametrize("stride", [1, 4])
def test_frame_values_and_back(shape, stride):
    network, x = build("gru", shape, stride=stride), torch.randn(3, *shape)
    x[0, ..., 7:] = math.nan
    values = network.frame_values(x)
    assert values.shape == (3, network.num_frames, network.frame_size)
    steps = x.flatten(1, -2)
    for step in range(13):  # channels are last within a step
        frame, place = divmod(step, stride)
        part = values[:, frame, place * steps.shape[1] : (place + 1) * steps.shape[1]]
        torch.testing.assert_close(part, steps[:, :, step], equal_nan=True)
    torch.testing.assert_close(network.from_frame_values(values), x, equal_nan=True)
    assert torch.equal(network.present(x), ~values.isnan().all(dim=2))


def test_gru_is_causal():
    network, x = build("gru", (2, 12), stride=2), torch.randn(3, 2, 12)
    other = x.clone()
    other[:, :, 6:] += 1
    before, after = network.frames(x), network.frames(other)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(dim=2).all()
    assert network.causal
    assert not build("tcn", (2, 12)).causal


@every_net
def test_hidden_frames_have_no_influence(name):
    network, x = build(name, (2, 12), stride=1), torch.randn(3, 2, 12)
    hidden = torch.zeros(3, 12, dtype=torch.bool)
    hidden[:, 4] = True
    other = x.clone()
    other[:, :, 4] = 9.0
    if name == "tcn":  # the stem mixes neighboring steps
        network.stem = torch.nn.Conv1d(2, 8, 1)
    torch.testing.assert_close(network.frames(x, hidden), network.frames(other, hidden))
    assert (network.frames(x, hidden) != network.frames(x)).any()


def test_pooling_matches_loops():
    frames = torch.randn(4, 6, 3)
    present = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0] * 6]).bool()
    for b in range(3):
        rows = frames[b][present[b]]
        wanted = {"mean": rows.mean(0), "max": rows.max(0).values, "last": rows[-1]}
        wanted["both"] = torch.cat([wanted["mean"], wanted["max"]])
        for pool, value in wanted.items():
            torch.testing.assert_close(pool_frames(frames, present, pool)[b], value)


@every_net
def test_stride_and_pool_are_checked(name):
    assert build(name, (1, 96)).stride == 1
    assert build(name, (1, 1000)).stride == 16
    with pytest.raises(RequestError, match="pool"):
        build(name, (1, 10), pool="median")
    with pytest.raises(RequestError, match="stride"):
        build(name, (1, 10), stride=0)
