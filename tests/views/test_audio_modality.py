"""What audio is compared with, corrupted by and drawn as, against simple references."""

from __future__ import annotations

import base64
import io
import wave as wave_file

import numpy as np
import pytest
import torch

from sslcli.data.audio.clips import to_int16
from sslcli.data.audio.tones import clip, tones
from sslcli.data.dataset import ArraySource
from sslcli.data.storage import Ragged
from sslcli.views import clean, previews
from sslcli.views.clips.baselines import mean_and_std, stretched
from sslcli.views.corruption import STRENGTHS, corrupt
from sslcli.views.modality import modality
from sslcli.views.preview.spectrogram import Spectrogram, to_wav
from tests.data.audio.sounds import sine

AUDIO = modality("audio")


@pytest.fixture(scope="module")
def data():
    return tones(samples=60)


def view(data, *waves: np.ndarray) -> torch.Tensor:
    """Clean views of waves at 8 kHz."""
    x = torch.stack([torch.nn.functional.pad(to_int16(w), (0, 8000 - len(w))) for w in waves])
    from sslcli.rng import Draw

    return clean(data)(x, Draw(0, 0, torch.arange(len(x))))[0]


def power(data, x: torch.Tensor) -> torch.Tensor:
    known = data.preprocessor
    return (x[:, 0] * torch.tensor(known.std)[:, None] + torch.tensor(known.mean)[:, None]).exp()


def corrupted(data, name: str, x: torch.Tensor, strength: int) -> torch.Tensor:
    return corrupt(AUDIO.corruptions(data)[name], name, x, strength, torch.arange(len(x)), 0)


def test_whole_clips_have_their_own_length(data):
    clips = AUDIO.whole(data.train, torch.tensor([3, 0, 7]), data)
    known = data.preprocessor
    for one, i in zip(clips, (3, 0, 7), strict=True):
        assert one.shape == (32, 1 + len(data.train.read(i)) // known.mel.hop)
    assert torch.equal(next(iter(clips[torch.tensor([2])])), list(clips)[2])
    stats = AUDIO.raw_features(data).transform(clips)
    assert torch.allclose(
        stats[1], torch.from_numpy(np.concatenate([list(clips)[1].mean(1), list(clips)[1].numpy().std(1)]))
    )


def test_stretched():
    x = torch.arange(8.0)[None].repeat(2, 1)
    assert torch.allclose(stretched(x).view(2, 32)[0], torch.linspace(0, 7, 32))
    assert torch.allclose(stretched(torch.arange(64.0)[None]), torch.arange(64.0).view(32, 2).mean(dim=1))
    assert mean_and_std(x).tolist() == pytest.approx([3.5, 3.5, float(np.arange(8).std()), float(np.arange(8).std())])


def test_baselines_learn_tones(data):
    y, y_test = data.train.labels, data.test.labels
    x, x_test = (AUDIO.whole(s, torch.arange(len(s)), data) for s in (data.train, data.test))
    for name, baseline in AUDIO.baselines(data).items():
        p = baseline.fit(x, y, 0)(x_test)
        assert p.shape == (len(y_test), 6), name
        assert float((p.argmax(dim=1) == y_test).double().mean()) > 0.5, name
        assert "logistic regression" in baseline.note
        few = torch.tensor([0, 1, 2, 3, 4, 5])
        assert baseline.fit(x[few], y[few], 0)(x_test).shape[1] == len(y[few].unique())


@pytest.mark.parametrize("name", ["noise", "clipping", "reverberation", "speed", "band_limit"])
def test_corruptions_grow(data, name):
    x = view(data, sine(1.0, hz=700), sine(0.5, hz=2500, level=0.2), np.random.default_rng(0).normal(size=6000) * 0.2)
    change = [float((corrupted(data, name, x, s) - x).square().mean()) for s in range(1, STRENGTHS + 1)]
    assert change[0] > 0
    assert change[-1] > 1.3 * change[0]
    assert torch.equal(corrupted(data, name, x, 3), corrupted(data, name, x, 3))
    one = corrupt(AUDIO.corruptions(data)[name], name, x[2:], 3, torch.tensor([2]), 0)
    assert torch.allclose(one, corrupted(data, name, x, 3)[2:], atol=1e-4)


def test_noise_has_its_ratio(data):
    """White noise of the wave at 10 decibels has the same power in the bands."""
    x = sine(1.0, hz=700)
    noise = np.random.default_rng(0).normal(size=8000)
    noise *= np.sqrt((x**2).mean() / (noise**2).mean() / 10)
    by_wave = power(data, view(data, x + noise))
    by_view = power(data, corrupted(data, "noise", view(data, x), 3))
    quiet = slice(20, 32)  # bands far from the tone
    a, b = by_wave[0, quiet, 5:60].mean(), by_view[0, quiet, 5:60].mean()
    assert 0.5 < float(a / b) < 2


def test_speed_moves_pitch(data):
    x = view(data, *[sine(1.0, hz=1000)] * 12)
    out = power(data, corrupted(data, "speed", x, 5))
    peaks = set(out.sum(dim=2).argmax(dim=1).tolist())
    expected = {int(power(data, view(data, sine(1.0, hz=hz))).sum(dim=2).argmax()) for hz in (1400, 1000 / 1.4)}
    assert len(peaks) == 2
    assert all(min(abs(p - e) for e in expected) <= 1 for p in peaks)


def test_reverberation_fills_pauses(data):
    x = view(data, np.concatenate([sine(0.3), np.zeros(2400)]))
    before, after = (power(data, z)[0].sum(dim=0) for z in (x, corrupted(data, "reverberation", x, 4)))
    assert float(after[45]) > 1000 * float(before[45])
    assert float(after[40]) > float(after[60])


def test_silent_clips_are_found(data):
    faint = 1e-4 * np.random.default_rng(0).normal(size=4000)
    found = AUDIO.defects(view(data, np.zeros(4000), faint, sine(0.5, level=0.01), sine(0.5)), data)
    assert torch.isfinite(found["silent"]).tolist() == [True, True, False, False]


def test_near_copies(data):
    """Other levels, a little noise and a shift of two frames; not another clip of the same kind."""

    def rising(seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        return clip("rising", 8000, draw, seconds=0.5) + 0.02 * draw.normal(size=4000)

    x = rising(0)
    noise = 0.002 * np.random.default_rng(9).normal(size=4000)
    views = view(data, x, 0.3 * x, np.concatenate([np.zeros(160), x]), x + noise, rising(1), rising(2))
    copies = AUDIO.near_copies(data, AUDIO.raw_features(data))
    similarity = copies.similarity(views[:1].expand(6, -1, -1, -1), views)
    assert (similarity[:4] >= copies.threshold).all(), similarity
    assert (similarity[4:] < 0.7).all(), similarity
    near = copies.describe(views) @ copies.describe(views)[0]
    assert (near[:4] >= copies.candidate).all(), near


def test_preview_draws_low_bands_at_the_bottom(data):
    (low,) = previews(data, view(data, sine(1.0, hz=100)))
    image = np.asarray(low.image(64, 64).convert("L")).astype(float)
    assert image[56:].mean() < image[:40].mean()  # darker is louder
    assert low.text() == "spectrogram of 0.63 s, 32 bands"
    assert "<audio" not in low.html()
    assert isinstance(low.reduce(), Spectrogram)
    assert low.difference(low).levels.abs().max() == 0
    assert low.importance(torch.rand(2, 4)).image(20, 20).size == (20, 20)
    assert low.overlay(torch.rand(3, 2, 4)).image(20, 20).size == (20, 20)


def test_preview_with_sound_has_a_player(data):
    sound = to_int16(sine(0.5))
    source = ArraySource(Ragged(sound, torch.tensor([0, len(sound)])))
    (shown,) = previews(data, view(data, sine(0.5)), source, torch.tensor([0]))
    player = shown.player()
    assert player is not None
    content = player.partition("base64,")[2].partition('"')[0]
    with wave_file.open(io.BytesIO(base64.b64decode(content))) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 4000)
        assert np.array_equal(np.frombuffer(file.readframes(4000), "<i2"), sound.numpy())
    assert "<audio" in shown.html()
    assert shown.importance(torch.rand(2, 4)).player() is None  # a map of the sample, beside which it plays
    assert to_wav(sound, 8000)[:4] == b"RIFF"
