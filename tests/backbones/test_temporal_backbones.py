"""Backbones with frames: padding, causality, shorter samples, spectrograms, frames as values and back, pooling."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.tcn import TCN
from sslcli.backbones.temporal.dilated import Dilated
from sslcli.backbones.temporal.frames import FrameBackbone, pool_frames
from sslcli.backbones.temporal.gru import GRU
from sslcli.backbones.temporal.inception import Inception
from sslcli.backbones.temporal.patchtst import PatchTST
from sslcli.backbones.temporal.rocket import Rocket
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous

NETS = {
    "gru": lambda shape, **options: GRU(shape, width=8, **options),
    "dilated": lambda shape, **options: Dilated(shape, width=6, depth=2, out=8, **options),
    "inception": lambda shape, **options: Inception(shape, width=2, depth=3, kernel=9, **options),
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


def centered(x: torch.Tensor) -> torch.Tensor:
    """Each channel of (B, C, T) less the mean of its present values, sample by sample."""
    out = x.clone()
    for sample in out:
        for channel in sample:
            there = ~channel.isnan()
            channel[there] -= channel[there].sum() / max(1, there.sum())
    return out


@pytest.mark.parametrize("stride", [1, 3])
def test_center_subtracts_the_mean_of_each_channel(stride):
    plain, centering = (build("gru", (4, 11), stride=stride, center=center) for center in (False, True))
    x = torch.randn(3, 4, 11)
    x[0, :, 8:], x[1, 2] = math.nan, math.nan
    torch.testing.assert_close(centering(x), plain(centered(x)))
    torch.testing.assert_close(centering.frame_values(x), plain.frame_values(centered(x)), equal_nan=True)
    offset = torch.randn(3, 4, 1)
    torch.testing.assert_close(centering(x + offset), centering(x))


@every_net
def test_silence_after_a_clip_is_padding(name):
    """The frames that a view adds to a short clip change no feature; silence before and inside a clip counts."""
    silence = (-2.0, -1.5, -3.0)
    network = build(name, (1, 3, 13))
    network.set_values(Continuous((0.0,), (1.0,), silence=silence))
    assert "silence" not in network.state_dict()
    x, floor = torch.randn(2, 1, 3, 9), torch.tensor(silence)[None, None, :, None]
    x[0, ..., 4:6] = floor[..., 0, :]
    filled = torch.cat([x, floor.expand(2, 1, 3, 4) + 1e-6], dim=3)
    torch.testing.assert_close(network(filled), network(x))
    assert network.present(filled).tolist() == [[True] * 9 + [False] * 4] * 2
    quiet = filled.clone()
    quiet[..., 12] += 0.01  # a sound, however faint
    assert network.present(quiet).all()
    assert torch.equal(network(floor.expand(1, 1, 3, 13)), torch.zeros(1, network.dim))
    other = build(name, (1, 3, 13))
    assert other.present(filled).all()  # a run whose values name no silence


def test_silence_after_a_clip_is_in_no_feature_of_rocket():
    """Frames of silence are read as missing ones, which NaN marks."""
    silence = torch.tensor((-2.0, -1.5, -3.0))
    network = Rocket((1, 3, 30), kernels=16).eval()
    x = torch.randn(2, 1, 3, 30)
    x[..., 22:] = silence[:, None]
    absent = x.clone()
    absent[..., 22:] = math.nan
    as_content = network(x)
    network.set_values(Continuous((0.0,), (1.0,), silence=tuple(silence.tolist())))
    torch.testing.assert_close(network(x), network(absent))
    assert not torch.allclose(network(x), as_content)


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
    assert build(name, (1, 96), stride="auto").stride == 1
    assert build(name, (1, 1000), stride="auto").stride == 16
    with pytest.raises(RequestError, match="pool"):
        build(name, (1, 10), pool="median")
    with pytest.raises(RequestError, match="stride"):
        build(name, (1, 10), stride=0)


def test_crop_takes_whole_frames():
    network, x = build("gru", (1, 3, 13), stride=4), torch.randn(2, 1, 3, 13)
    part = network.crop(x, torch.tensor([0, 2]), 2)
    assert part.shape == (2, 1, 3, 8)
    assert torch.equal(part[0], x[0, ..., :8])
    torch.testing.assert_close(part[1], F.pad(x[1, ..., 8:], (0, 3), value=math.nan), equal_nan=True)
    values = network.frame_values(x)
    torch.testing.assert_close(network.frame_values(part)[1], values[1, 2:], equal_nan=True)


def test_dilated_matches_the_formula():
    """Each layer written out step by step, for a series that lacks nothing."""
    network, x = build("dilated", (2, 9)), torch.randn(1, 2, 9)

    def convolve(conv, h):  # (T, C)
        out = []
        for t in range(len(h)):
            taps = [t + conv.dilation[0] * (k - conv.kernel_size[0] // 2) for k in range(conv.kernel_size[0])]
            terms = [conv.weight[:, :, k] @ h[s] for k, s in enumerate(taps) if 0 <= s < len(h)]
            out.append(torch.stack(terms).sum(0) + conv.bias)
        return torch.stack(out)

    h = x[0].T @ network.embed.weight.T + network.embed.bias
    for i, block in enumerate(network.blocks):
        assert block.conv1.dilation == block.conv2.dilation == (2**i,)
        y = convolve(block.conv2, F.gelu(convolve(block.conv1, F.gelu(h))))
        h = y + (h if i < 2 else convolve(block.shortcut, h))
    torch.testing.assert_close(network.frames(x)[0], h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x)[0], h.max(dim=0).values, rtol=1e-4, atol=1e-5)


def test_dilated_has_the_size_of_the_paper():
    network = Dilated((3, 50))
    assert network.dim == 320
    block = 2 * (64 * 64 * 3 + 64)
    last = 64 * 320 * 3 + 320 + 320 * 320 * 3 + 320 + 64 * 320 + 320
    assert sum(p.numel() for p in network.parameters()) == 3 * 64 + 64 + 10 * block + last
    with pytest.raises(RequestError, match="odd"):
        Dilated((3, 50), kernel=4)


def test_inception_matches_the_formula():
    network = build("inception", (2, 20))
    x = torch.randn(3, 2, 20)
    h = start = x
    for i, module in enumerate(network.layers):
        narrow = F.conv1d(h, module.bottleneck.weight)
        parts = [F.conv1d(narrow, c.weight, padding=c.weight.shape[2] // 2) for c in module.convs]
        window = F.pad(h, (1, 1), value=-math.inf).unfold(2, 3, 1).amax(dim=3)
        parts.append(F.conv1d(window, module.pooled.weight))
        h = (torch.cat(parts, dim=1) / math.sqrt(1 + 1e-5)).relu()  # batch norm at the start
        if i == 2:
            h = (h + F.conv1d(start, network.shortcuts[0][0].weight) / math.sqrt(1 + 1e-5)).relu()
    torch.testing.assert_close(network(x), h.mean(dim=2), rtol=1e-4, atol=1e-5)
    assert [c.kernel_size[0] for c in Inception((1, 50)).layers[0].convs] == [39, 19, 9]
    assert len(Inception((1, 50)).shortcuts) == 2


@torch.no_grad()
def test_rocket_matches_loops():
    torch.manual_seed(0)
    network, x = Rocket((2, 40), kernels=5), torch.randn(2, 2, 40)
    x[1, :, 30:] = math.nan
    assert [c.dilation[0] for c in network.convs] == [1, 2, 4]
    wanted = []
    for b, length in ((0, 40), (1, 30)):
        largest, positive = [], []
        for conv in network.convs:
            for weight, bias in zip(conv.weight, conv.bias, strict=True):
                out = []
                for t in range(length):
                    taps = [(k, t + conv.dilation[0] * (k - 4)) for k in range(9)]
                    terms = [float(weight[:, k] @ x[b, :, s]) for k, s in taps if 0 <= s < length]
                    out.append(sum(terms) + float(bias))
                largest.append(max(out))
                positive.append(sum(v > 0 for v in out) / length)
        wanted.append(largest + positive)
    torch.testing.assert_close(network(x), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    for conv in Rocket((3, 300), kernels=100).convs:
        torch.testing.assert_close(conv.weight.mean(dim=(1, 2)), torch.zeros(len(conv.weight)), atol=1e-6, rtol=0)


def patchtst(shape=(3, 24), **options) -> PatchTST:
    torch.manual_seed(0)
    net = PatchTST(shape, width=16, depth=2, heads=4, patch=4, **options).eval()
    torch.nn.init.normal_(net.pos_embed)
    return net


def test_channels_of_patchtst_do_not_see_each_other():
    """Tokens of a channel equal those of the transformer on that channel alone, also with selected tokens, padding and shorter
    samples."""
    net, x = patchtst(), torch.randn(2, 3, 24)
    alone = patchtst((1, 24))
    for steps in (24, 17):
        part = x[:, :, :steps].clone()
        part[0, 1, 10:] = math.nan  # the end of one channel
        got = net.tokens(part)[:, 1:].unflatten(1, (3, -1))
        for c in range(3):
            torch.testing.assert_close(got[:, c], alone.tokens(part[:, c : c + 1])[:, 1:])
    other = x.clone()
    other[:, 2] += 1
    keep = torch.tensor([[0, 4, 7, 8, 13, 17], [1, 2, 6, 11, 12, 14]])  # of 3 x 6 tokens
    before, after = net.tokens(x, keep=keep)[:, 1:], net.tokens(other, keep=keep)[:, 1:]
    same = keep < 12
    assert torch.equal(before[same], after[same])
    assert (before[~same] != after[~same]).any(dim=1).all()
    assert not torch.equal(net.tokens(x)[:, 0], net.tokens(other)[:, 0])  # the class token sees all


def test_patchtst_has_features_of_channels():
    net, x = patchtst(), torch.randn(2, 3, 24)
    x[1, 2] = math.nan
    features = net.channel_features(x)
    assert features.shape == (2, 3, 6 * 16)
    torch.testing.assert_close(features[0, 1], net.tokens(x)[0, 1 + 6 : 1 + 12].flatten())
    assert not features[1, 2].any()
    assert features[1, :2].any(dim=1).all()
    torch.testing.assert_close(net(x)[1], net.tokens(x)[1, 1:13].mean(dim=0))
    assert net(x).isfinite().all()
    torch.testing.assert_close(net.unpatchify(net.patchify(x)), x, equal_nan=True)
    attention = net.attention(x[:1])
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(1, 4))


def test_patchtst_names_a_patch_that_fits():
    with pytest.raises(RequestError, match=r"8,000 tokens, more than 4,096") as error:
        PatchTST((1000, 32), width=16, heads=4, patch=4)
    assert error.value.hint.startswith("backbone=patch_vit")
    PatchTST((1000, 32), width=16, heads=4, patch=int(error.value.hint.rpartition("backbone.patch=")[2]))
    with pytest.raises(RequestError, match="more than 4,096") as error:
        PatchTST((5000, 8), width=16, heads=4, patch=8)
    assert "backbone.patch=" not in error.value.hint
    with pytest.raises(RequestError, match="requires series"):
        PatchTST((3, 8, 8))
