"""Views of audio: windows, ops on waves and on spectrograms against formulas, and the same view of a clip in any batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.data.audio.clips import cut, join_clips
from sslcli.data.audio.mel import LogMel, to_hz, to_mel
from sslcli.data.audio.statistics import wave
from sslcli.data.audio.tones import tones
from sslcli.data.storage import RaggedBatch
from sslcli.errors import RequestError
from sslcli.rng import Draw
from sslcli.views import Views
from sslcli.views.clips.mel_ops import BandMask, FrequencyWarp, Mix, ResizeCrop, TimeMask
from sslcli.views.clips.view import AudioView
from sslcli.views.clips.wave_ops import Gain, Noise, Shift, Window
from sslcli.views.op import OpRandoms

IDS = torch.arange(24)
RECIPE = {
    "window": {},
    "gain": {"p": 0.5},
    "shift": {},
    "noise": {},
    "mix": {"share": 0.4},
    "resize_crop": {"p": 0.7},
    "frequency_warp": {"p": 0.5},
    "time_mask": {},
    "band_mask": {"p": 0.5},
}


@pytest.fixture(scope="module")
def data():
    return tones(samples=36, bands=16, seconds=0.5)


def batch(data, ids=IDS) -> RaggedBatch:
    return RaggedBatch(data.train.resident, ids)


def run(op, x, data, n=None):
    op.bind(x.shape[1:])
    op.attach(data, data.preprocessor)
    draw = Draw(1, 2, torch.arange(len(x)))
    return OpRandoms([op], draw, x.device).run([op], x.clone(), slice(0, len(x)))


def params(op, n):
    randoms = OpRandoms([op], Draw(1, 2, torch.arange(n)), torch.device("cpu"))
    return randoms.params(op)[0]


def mels(data, n=4):
    return Views({"clean": 1}, {}, data)(batch(data, torch.arange(n)), Draw(0, 0, torch.arange(n)))[0]


def test_clean_view_by_hand(data):
    """A window of the middle, or the clip and silence; the spectrogram; each band normalized."""
    known = data.preprocessor
    view = mels(data, 24)
    assert view.shape == (24, *data.shape)
    n = known.mel.samples(known.frames)
    for i in range(24):
        clip = data.train.read(i)
        start = max(0, len(clip) - n) // 2
        x = LogMel(known.mel)(wave(cut(clip, start, n))[None])[0]
        assert torch.allclose(
            view[i, 0], (x - torch.tensor(known.mean)[:, None]) / torch.tensor(known.std)[:, None], atol=1e-5
        )


def test_padding_is_silence(data):
    """The lowest value of each band, not 0."""
    known, op = data.preprocessor, ResizeCrop()
    op.attach(data, known)
    short = next(i for i in range(24) if len(data.train.read(i)) < 0.3 * 8000)
    assert torch.allclose(mels(data, 24)[short, 0, :, -3:], op.silence(torch.device("cpu")).expand(-1, 3), atol=1e-4)
    assert float(op.silence(torch.device("cpu")).max()) < -0.5


@pytest.mark.parametrize("resident", [True, False])
def test_view_does_not_depend_on_the_batch(data, resident):
    views = Views({"global": 2, "local": 1}, {"global": RECIPE, "local": {"window": {"size": 0.5}}}, data)
    assert views.shapes == [data.shape, data.shape, (1, 16, data.shape[2] // 2)]
    draw = Draw(3, 1, IDS)
    whole = views(batch(data), draw)
    some = torch.tensor([17, 3, 5])
    if resident:
        part = views(batch(data, some), draw.rows(some))
    else:  # as worker processes read clips
        part = views.finish(views.frames([data.train.read(i) for i in some.tolist()], draw.rows(some)), draw.rows(some))
    for one, other in zip(whole, part, strict=True):
        assert torch.isfinite(one).all()
        assert torch.allclose(one[some], other, atol=1e-4)
    assert not torch.allclose(whole[0], whole[1])


def test_window_positions():
    op = Window()
    op.bind((1, 8, 16))
    lengths = torch.tensor([100, 1000] * 2000)
    start = op.start(lengths, 400, params(op, 4000))
    assert (int(start[::2].min()), int(start[::2].max())) == (-300, 0)
    assert 0 <= int(start[1::2].min()) < 5
    assert 595 < int(start[1::2].max()) <= 600
    assert abs(float(start[1::2].float().mean()) - 300) < 12


def test_gain(data):
    x = torch.rand(5, 100) - 0.5
    assert torch.allclose(run(Gain([6, 6]), x, data), x * 10 ** (6 / 20))
    factor = run(Gain([-6, 6]), x, data)[:, 0] / x[:, 0]
    assert len(factor.unique()) == 5


def test_shift(data):
    x = torch.arange(1.0, 101).repeat(6, 1)
    op = Shift(0.3)
    out, by = run(op, x, data), (params(op, 6)["by"] * 100).round().long().tolist()
    assert min(by) < 0 < max(by)
    for row, k in zip(out, by, strict=True):
        assert torch.equal(row, cut(x[0].short(), -k, 100).float())


def test_noise_level(data):
    x = torch.sin(torch.arange(20_000.0)).repeat(3, 1)
    noise = run(Noise([20, 20]), x, data) - x
    snr = 10 * torch.log10(x.square().mean(dim=1) / noise.square().mean(dim=1))
    assert torch.allclose(snr, torch.full((3,), 20.0), atol=0.3)
    assert not run(Noise(), torch.zeros(2, 50), data).any()


def test_mix_equals_byol_a(data):
    """The authors' `log_mixup_exp` (byol_a/augmentations.py), on spectrograms in natural units."""

    def log_mixup_exp(xa, xb, alpha):
        return torch.log(alpha * xa.exp() + (1.0 - alpha) * xb.exp() + torch.finfo(xa.dtype).eps)

    x, op = mels(data), Mix(0.4)
    out, given = run(op, x, data), params(op, 4)
    pool, mean, std = op.pool(x.device), op.mean(x.device), op.std(x.device)
    for i in range(4):
        share = float(given["share"][i])
        assert 0 <= share <= 0.4
        z = pool[int(given["other"][i] * len(pool))]
        expected = log_mixup_exp(x[i, 0] * std + mean, z, 1.0 - share)
        assert torch.allclose((out[i, 0] * std + mean).exp(), expected.exp(), rtol=1e-3, atol=2e-7)
    assert torch.allclose(run(Mix(0.0), x, data), x, atol=1e-5)
    assert len(pool) == len(data.train)


def test_resize_crop_equals_interpolation(data):
    """The part of a larger area with silence around, resized by torch's linear interpolation with aligned corners."""
    x, op = mels(data, 8), ResizeCrop(bands=[0.5, 1.4], time=[0.5, 1.5], room=1.5)
    out, given = run(op, x, data), params(op, 8)
    height, width = x.shape[2:]
    silence = op.silence(x.device)
    area = silence.expand(-1, int(1.5 * width)).clone()
    for i in range(8):
        area[:, (area.shape[1] - width) // 2 :][:, :width] = x[i, 0]
        h = int(min(max(math.floor(given["height"][i] * height), 1), height))
        w = int(min(max(math.floor(given["width"][i] * width), 1), area.shape[1]))
        top, left = (int(given["top"][i] * (height - h + 1)), int(given["left"][i] * (area.shape[1] - w + 1)))
        part = (area - silence)[top : top + h, left : left + w]
        expected = F.interpolate(part[None, None], (height, width), mode="bilinear", align_corners=True)[0, 0] + silence
        assert torch.allclose(out[i, 0], expected, atol=1e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_frequency_warp_equals_the_formula(data, scale):
    """Each band takes the log power at f * factor, or on the line to the highest frequency above the bend of Jaitly & Hinton."""
    known = replace(data.preprocessor, mel=replace(data.preprocessor.mel, scale=scale))
    data = replace(data, preprocessor=known)
    x, op = mels(data, 6), FrequencyWarp([0.7, 1.4])
    out, factors = run(op, x, data), params(op, 6)["factor"].tolist()
    assert min(factors) < 1 < max(factors)
    mel, mean, std = known.mel, op.mean(x.device), op.std(x.device)
    corners = np.linspace(
        *to_mel(torch.tensor([mel.f_min, mel.f_max], dtype=torch.float64), scale).tolist(), mel.bands + 2
    )
    for i, factor in enumerate(factors):
        power = (x[i, 0] * std + mean).numpy()
        source = []
        for f in to_hz(torch.tensor(corners[1:-1]), scale).tolist():
            bend = 0.6 * mel.f_max * min(factor, 1)  # of the input
            if f * factor <= bend:
                source.append(f * factor)
            else:
                slope = (mel.f_max - bend) / (mel.f_max - bend / factor)
                source.append(bend + slope * (f - bend / factor))
        at = to_mel(torch.tensor(source, dtype=torch.float64), scale).numpy()
        expected = np.stack([np.interp(at, corners[1:-1], power[:, t]) for t in range(power.shape[1])], axis=1)
        assert np.allclose((out[i, 0] * std + mean).numpy(), expected, atol=1e-4)
    assert torch.allclose(run(FrequencyWarp([1, 1]), x, data), x, atol=1e-5)


def test_frequency_warp_moves_a_tone_and_keeps_silence(data):
    """1,000 Hz of a vocal tract that is 1.25 times as long is 800 Hz; a frame without sound has none afterwards."""
    known, op = data.preprocessor, FrequencyWarp([1.25, 1.25])
    samples = known.mel.samples(data.shape[2])

    def view(hz):
        wave = 0.5 * torch.sin(2 * math.pi * hz * torch.arange(samples // 2) / known.mel.rate)
        x = LogMel(known.mel)(F.pad(wave, (0, samples - len(wave)))[None])
        return (x[0] - torch.tensor(known.mean)[:, None]) / torch.tensor(known.std)[:, None]

    out = run(op, view(1000)[None, None], data)
    natural = out[0, 0] * op.std(out.device) + op.mean(out.device)
    expected = view(800) * op.std(out.device) + op.mean(out.device)
    assert int(natural[:, 10].argmax()) == int(expected[:, 10].argmax())
    silence = op.silence(out.device)
    assert torch.allclose(out[0, 0, :, -8:], silence.expand(-1, 8), atol=1e-4)


@pytest.mark.parametrize(("kind", "axis"), [(TimeMask, 3), (BandMask, 2)])
def test_masks(data, kind, axis):
    x = mels(data, 20)
    out = run(kind(0.5, spans=2), x, data)
    changed = out != x
    across = changed.all(dim=5 - axis)
    assert torch.equal(across, changed.any(dim=5 - axis))
    share = across.float().mean(dim=2)
    assert 0.2 < float(share.mean()) < 0.6
    hidden = out[changed].unique()
    assert all((hidden - v).abs().min() < 1e-6 for v in x.mean(dim=(2, 3)).flatten()[across.any(dim=2).flatten()])


def test_order_of_ops(data):
    with pytest.raises(RequestError, match="gain changes the wave: it must come before time_mask"):
        Views({"global": 1}, {"global": {"time_mask": {}, "gain": {}}}, data)
    with pytest.raises(RequestError, match="must be the first op"):
        Views({"global": 1}, {"global": {"gain": {}, "window": {}}}, data)


@pytest.mark.parametrize(
    "recipe",
    [{"mix": {"share": 2}}, {"noise": {"snr": [3, 1]}}, {"window": {"size": -1}}, {"time_mask": {"spans": 1.5}}],
)
def test_ops_refuse(data, recipe):
    with pytest.raises(RequestError, match=r"augmentation\.global"):
        Views({"global": 1}, {"global": recipe}, data)


def test_normalization_of_the_configuration(data):
    """`normalization={mean: [m], std: [s]}` applies after that of the bands."""
    from sslcli.nn.values import Continuous

    other = replace(data, values=Continuous((1.0,), (2.0,)))
    assert torch.allclose(mels(other), (mels(data) - 1) / 2, atol=1e-5)


def test_tensor_of_clips(data):
    x = torch.stack([cut(data.train.read(i), 0, 4000) for i in range(3)])
    view, draw = AudioView([], data), Draw(0, 0, torch.arange(3))
    storage = join_clips(list(x))
    assert torch.equal(view.resident(x, draw), view.resident(RaggedBatch(storage, torch.arange(3)), draw))
