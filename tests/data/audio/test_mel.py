"""Log-mel spectrograms equal those of librosa, whose values are stored with their settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.data.audio.mel import LogMel, MelSettings, equal_loudness, filters, to_hz, to_mel

CASES = json.loads((Path(__file__).parent / "librosa_mel.json").read_text())["cases"]
SETTINGS = MelSettings(8000, 256, 80, 16, 50.0, 4000.0)


def chirp(n: int, rate: int) -> torch.Tensor:
    """Two tones, and something in all bands."""
    t = np.arange(n) / rate
    x = 0.5 * np.sin(2 * np.pi * (100 * t + 1500 * t**2)) + 0.1 * np.sin(2 * np.pi * 0.31 * rate * t)
    return torch.from_numpy((x + 0.02 * np.sin(0.7 * np.arange(n) ** 2)).astype(np.float32))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['settings']['scale']}-{c['settings']['norm']}")
def test_log_mel_equals_librosa(case):
    """`librosa.feature.melspectrogram(center=True, pad_mode="constant")`, then log(. + log_epsilon), version 0.11.0."""
    settings = MelSettings(**case["settings"])
    x = chirp(case["samples"], settings.rate)
    expected = torch.tensor(case["values"])
    assert torch.allclose(LogMel(settings)(x[None])[0], expected, atol=1e-4, rtol=0)
    assert expected.shape[1] == settings.frames(len(x))
    assert settings.frames(settings.samples(7)) == 7


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_scale_inverts(scale):
    hz = torch.linspace(0, 20_000, 300, dtype=torch.float64)
    assert torch.allclose(to_hz(to_mel(hz, scale), scale), hz, atol=1e-6)


def test_slaney_filters_have_equal_area():
    widths = filters(replace(SETTINGS, n_fft=8192)).sum(dim=1) * (8000 / 8192)
    assert torch.allclose(widths, torch.ones(16), atol=0.02)
    assert SETTINGS.empty_bands() == 0
    assert replace(SETTINGS, n_fft=80, bands=40).empty_bands() > 0


def test_silence_is_the_floor():
    x = LogMel(SETTINGS)(torch.zeros(2, 900))
    assert torch.allclose(x, torch.full_like(x, SETTINGS.log_floor))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("n_fft", 1 << 20), ("hop", 0), ("bands", 0), ("f_max", 9000.0), ("f_min", 4000.0), ("scale", "bark"),
     ("norm", "l2"), ("log_epsilon", 0.0), ("loudness", "loud")],
)  # fmt: skip
def test_settings_refuse(field, value):
    with pytest.raises(ValueError, match=field if field != "f_min" else "f_min"):
        replace(SETTINGS, **{field: value})


def test_equal_loudness_of_clips_in_silence():
    """The root mean square of the clip alone is 0.1, but nothing is amplified by more than 100."""
    clip = chirp(700, 8000)
    x = torch.stack(
        [torch.nn.functional.pad(clip * level, (at, 300 - at)) for level, at in ((1, 0), (0.02, 120), (1e-6, 300))]
    )
    out = equal_loudness(x)
    expected = clip * (0.1 / np.sqrt(np.mean(np.trim_zeros(clip.numpy()) ** 2)))
    assert torch.allclose(out[0, :700], expected, atol=1e-6)
    assert torch.allclose(out[1, 120:820], expected, atol=1e-6)
    assert torch.allclose(out[2], 100 * x[2])
    assert not equal_loudness(torch.zeros(2, 9)).any()
    equal = LogMel(replace(SETTINGS, loudness="equal"))
    assert torch.equal(equal(x), LogMel(SETTINGS)(out))
    assert torch.allclose(equal(torch.zeros(1, 900)), torch.tensor(SETTINGS.log_floor))


def test_settings_round_trip():
    """Those of earlier versions lack the loudness."""
    content = json.loads(json.dumps(SETTINGS.to_json()))
    assert "loudness" not in content
    assert MelSettings.from_json(content) == SETTINGS
    equal = replace(SETTINGS, loudness="equal")
    assert MelSettings.from_json(json.loads(json.dumps(equal.to_json()))) == equal
    for wrong in (None, [], {}, {**content, "more": 1}, {**content, "rate": "8000"}, {**content, "bands": True}):
        with pytest.raises(ValueError):
            MelSettings.from_json(wrong)
