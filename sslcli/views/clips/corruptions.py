"""Corruptions of audio: functions of clean views (B, 1, F, T), a severity 0..4 and a generator for each clip. See
`corruption.py`.

Clean views are spectrograms, so that the corruptions change powers, not waves: noise and echoes add power, a clipped wave has
power at all frequencies, a codec removes the high bands, another speed moves times and pitches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sslcli.data.audio.mel import filters, to_hz, to_mel
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.views.corruption import Corruption, Generators, normal, uniform


def corruptions(known: AudioPreprocessor) -> Mapping[str, Corruption]:
    """By name, for spectrograms with the settings and the normalization of a preprocessor."""
    mel = known.mel
    mean, std = torch.tensor(known.mean)[:, None], torch.tensor(known.std)[:, None]
    width = filters(mel).sum(dim=1)[:, None]  # what white noise has in each band
    low, high = to_mel(torch.tensor([mel.f_min, mel.f_max], dtype=torch.float64), mel.scale).tolist()
    center = to_hz(
        torch.linspace(low, high, mel.bands + 2, dtype=torch.float64)[1:-1], mel.scale
    )  # of the bands, in Hz

    def on_powers(change: Callable[[Tensor, int, Generators], Tensor]) -> Corruption:
        """A corruption of powers (B, F, T), as one of normalized views."""

        def corruption(x: Tensor, s: int, generators: Generators) -> Tensor:
            power = ((x[:, 0] * std + mean).exp() - mel.log_epsilon).clamp(min=0)
            changed = change(power, s, generators)
            return (((changed + mel.log_epsilon).log() - mean) / std)[:, None]

        corruption.__doc__ = change.__doc__
        return corruption

    def level(power: Tensor, s: int, db: tuple[float, ...]) -> Tensor:
        """The mean power of the frames with sound, times a factor in decibels, for white noise: (B, 1, 1)."""
        frames = (power / width).mean(dim=1)
        loud = frames >= 0.01 * frames.amax(dim=1, keepdim=True)
        return (frames * loud).sum(dim=1).div(loud.sum(dim=1).clamp(min=1))[:, None, None] * 10 ** (db[s] / 10)

    def noise(power: Tensor, s: int, generators: Generators) -> Tensor:
        """White noise at a signal-to-noise ratio of 20 .. 0 decibels."""
        exponential = (normal(power, generators).square() + normal(power, generators).square()) / 2
        return power + level(power, s, (-20, -15, -10, -5, 0)) * width * exponential

    def clipping(power: Tensor, s: int, generators: Generators) -> Tensor:
        """Amplified by 3 .. 24 decibels, with no frame louder than the loudest was before; what a clipped frame gets of other
        frequencies is a share of its power, 0.1 .. 10 %, in all bands."""
        frames = power.sum(dim=1, keepdim=True)
        louder = power * 10 ** ((3, 6, 12, 18, 24)[s] / 10)
        limit = (frames.amax(dim=2, keepdim=True) / louder.sum(dim=1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
        spread = (0.001, 0.003, 0.01, 0.03, 0.1)[s] * (louder * limit).sum(dim=1, keepdim=True) * (limit < 1)
        return louder * limit + spread * width / width.sum()

    def reverberation(power: Tensor, s: int, generators: Generators) -> Tensor:
        """An echo that decays by 60 decibels in 0.2 .. 2 seconds, added to the direct sound at half its power."""
        seconds = (0.2, 0.4, 0.7, 1.2, 2.0)[s]
        frames = power.shape[2]
        decay = 10 ** (-6 * torch.arange(frames) * mel.hop / mel.rate / seconds)
        tail = decay / decay.sum()
        times = torch.arange(frames)
        echo = torch.where(times >= times[:, None], tail[(times - times[:, None]).clamp(min=0)], 0.0)  # (from, to)
        return power + 0.5 * power @ echo

    def speed(power: Tensor, s: int, generators: Generators) -> Tensor:
        """Played 5 .. 40 % faster or slower, at random: other pitches, too."""
        factor = (1.05, 1.1, 1.18, 1.28, 1.4)[s]
        faster = uniform(power, generators, 1)[:, 0] < 0.5
        by = torch.where(faster, factor, 1 / factor)
        bands = _places(to_mel(center / by[:, None].double(), mel.scale), to_mel(center, mel.scale)).float()
        frames = torch.arange(power.shape[2], dtype=torch.float64)
        times = _places(frames * by[:, None].double(), frames).float()
        return bands @ power @ times.transpose(1, 2)

    def band_limit(power: Tensor, s: int, generators: Generators) -> Tensor:
        """Nothing above 80 .. 20 % of the highest frequency, as after a codec or a telephone line."""
        most = mel.f_max * (0.8, 0.6, 0.45, 0.3, 0.2)[s]
        return power * (center <= most)[:, None]

    every = (noise, clipping, reverberation, speed, band_limit)
    return {f.__name__: on_powers(f) for f in every}


def _places(at: Tensor, grid: Tensor) -> Tensor:
    """(B, n, m): weights of linear interpolation at the places `at` (B, n) of values on an even grid (m,); 0 beyond its ends."""
    step = grid[1] - grid[0]
    return (1 - (at[:, :, None] - grid).abs() / step).clamp(min=0)
