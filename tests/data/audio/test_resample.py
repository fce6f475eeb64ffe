"""Resampling: tones survive, what is above the new Nyquist frequency does not, and any part equals that part of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from sslcli.data.audio.resample import BETA, ROLLOFF, ZEROS, resample, resampled_length
from tests.data.audio.sounds import sine


def whole(x: np.ndarray, source: int, rate: int, start: int = 0, count: int | None = None) -> np.ndarray:
    def read(first: int, samples: int) -> np.ndarray:
        assert 0 <= first <= first + samples <= len(x)
        return x[first : first + samples].astype(np.float32)

    return resample(
        read, len(x), source, rate, start, resampled_length(len(x), source, rate) if count is None else count
    )


PAIRS = [(44_100, 16_000), (8000, 16_000), (48_000, 8000), (16_000, 11_025), (22_050, 22_051)]


@pytest.mark.parametrize(("source", "rate"), PAIRS)
def test_tone_is_kept(source, rate):
    y = whole(sine(0.5, source, 1000.0), source, rate)
    inside = slice(rate // 10, -rate // 10)
    assert np.abs(y - sine(0.6, rate, 1000.0)[: len(y)])[inside].max() < 1e-3


@pytest.mark.parametrize(("source", "rate", "hz"), [(44_100, 16_000, 9000), (48_000, 8000, 4500), (16_000, 8000, 7900)])
def test_above_nyquist_is_removed(source, rate, hz):
    y = whole(sine(0.5, source, hz), source, rate)
    assert np.abs(y[rate // 10 : -rate // 10]).max() < 1e-3


@pytest.mark.parametrize(("source", "rate"), PAIRS)
def test_parts_equal_the_whole(source, rate):
    x = np.random.default_rng(0).normal(size=4000)
    y = whole(x, source, rate)
    for start, count in ((0, 1), (0, 100), (321, 300), (len(y) - 50, 50)):
        assert np.allclose(whole(x, source, rate, start, count), y[start : start + count], atol=1e-6)


def test_equals_the_formula():
    """y(m) = sum over n of x(n) g(m / rate - n / source), with the windowed sinc g, in float64."""
    source, rate = 11_025, 8000
    x = np.random.default_rng(0).normal(size=300)
    cutoff = ROLLOFF * min(1, rate / source)  # of the Nyquist frequency of the source
    distance = np.arange(200)[:, None] * source / rate - np.arange(300)  # in samples of the source
    half = ZEROS / cutoff
    window = np.where(
        np.abs(distance) <= half, np.i0(BETA * np.sqrt(np.maximum(0, 1 - (distance / half) ** 2))) / np.i0(BETA), 0
    )
    expected = (cutoff * np.sinc(cutoff * distance) * window) @ x
    assert np.allclose(whole(x, source, rate)[:200], expected, atol=2e-3)


def test_equal_rates_are_exact():
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert np.array_equal(whole(x, 8000, 8000, 10, 20), x[10:30])
