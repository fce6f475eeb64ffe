"""Convert audio to the inputs of the encoder in this folder: normalized log-mel spectrograms. Requires NumPy."""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FULL_SCALE = 32768  # of int16
ZEROS, ROLLOFF, BETA = 32, 0.945, 10.0  # of the filter of a conversion between sampling rates
BLOCK = 1 << 14  # samples that are converted at a time


class Preprocessor:
    """mel: the settings of the spectrogram: `rate`, samples per second; `n_fft`, samples of a window; `hop`, samples between
    frames; `bands`, `f_min`, `f_max`, `scale` and `norm` of the filters; `log_epsilon`, added before the natural logarithm;
    `loudness`, in which case waves are scaled to a root mean square of 0.1.

    frames: of an input. channels: `mean` of all, or the `first`. mean, std: (F, 1), of each band of the training data."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.mel: dict[str, Any] = about["mel"]
        self.frames: int = about["frames"]
        self.channels: str = about["channels"]
        self.mean, self.std = (np.reshape(about[key], (-1, 1)) for key in ("mean", "std"))
        self.filters = mel_filters(self.mel)

    def encode(self, clips: Iterable[Any], rate: int | None = None) -> np.ndarray:
        """(n, 1, F, T) float32.

        clips: paths of WAV files of integers, or waves (samples,) or (samples, channels), int16 or floats in -1..1, with `rate`
        samples per second, by default that of the encoder. Other files: `soundfile.read` returns a wave and its rate."""
        return np.stack([self.log_mel(self.window(self.load(clip, rate)))[None] for clip in clips])

    def load(self, clip: Any, rate: int | None) -> np.ndarray:
        """The wave of one channel, (samples,) float64, multiples of 1 / 32768, at the rate of the encoder."""
        if isinstance(clip, (str, Path)):
            x, rate = read_wav(clip)
        else:
            array = np.asarray(clip)
            x = array.astype(np.float64) / (FULL_SCALE if array.dtype == np.int16 else 1)
        x = x[:, None] if x.ndim == 1 else x
        x = x[:, 0] if self.channels == "first" else x.mean(axis=1)
        x = x if rate in (None, self.mel["rate"]) else resample(x, int(rate or 0), self.mel["rate"])
        return np.clip(np.rint(x * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE

    def window(self, x: np.ndarray) -> np.ndarray:
        """The middle of a longer clip; a shorter one is followed by silence."""
        size = (self.frames - 1) * self.mel["hop"]
        start = max(0, len(x) - size) // 2
        x = x[start : start + size]
        return np.pad(equal_loudness(x) if "loudness" in self.mel else x, (0, size - len(x)))

    def log_mel(self, x: np.ndarray) -> np.ndarray:
        """(F, T) float32, normalized by band."""
        n_fft, hop = self.mel["n_fft"], self.mel["hop"]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        padded = np.pad(x, n_fft // 2)
        windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
        power = np.abs(np.fft.rfft(windows * hann)) ** 2  # (T, 1 + n_fft // 2)
        log_mel = np.log(self.filters @ power.T + self.mel["log_epsilon"])
        return ((log_mel - self.mean) / self.std).astype(np.float32)


def equal_loudness(x: np.ndarray) -> np.ndarray:
    """The wave with a root mean square of 0.1 between its first and last value that is not zero, by at most a factor of 100."""
    sound = np.trim_zeros(x)
    return x * min(0.1 / np.sqrt((sound**2).mean()), 100.0) if len(sound) else x


def mel_filters(mel: dict[str, Any]) -> np.ndarray:
    """(F, 1 + n_fft // 2): triangles whose corners are equally spaced on the mel scale."""
    low, high = (hz_to_mel(mel[key], mel["scale"]) for key in ("f_min", "f_max"))
    corners = np.array([mel_to_hz(m, mel["scale"]) for m in np.linspace(low, high, mel["bands"] + 2)])
    bins = np.arange(1 + mel["n_fft"] // 2) * (mel["rate"] / mel["n_fft"])
    ramps, width = bins - corners[:, None], np.diff(corners)[:, None]
    out = np.maximum(0, np.minimum(ramps[:-2] / width[:-1], -ramps[2:] / width[1:]))
    return out * (2 / (corners[2:] - corners[:-2]))[:, None] if mel["norm"] == "slaney" else out


def hz_to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def mel_to_hz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) / 27 * (mel - 15))


def read_wav(path: str | Path) -> tuple[np.ndarray, int]:
    """(samples, channels) in -1..1, and the samples per second. wave.Error for a file of another type."""
    with wave.open(str(path), "rb") as file:
        channels, size, rate, count = file.getparams()[:4]
        content = file.readframes(count)
    if size == 1:
        x = (np.frombuffer(content, np.uint8) - 128.0) / 128
    else:
        whole = np.zeros((len(content) // size, 4), np.uint8)
        whole[:, 4 - size :] = np.frombuffer(content, np.uint8).reshape(-1, size)
        x = whole.view("<i4")[:, 0] / 2.0**31
    return x.reshape(-1, channels), rate


def resample(x: np.ndarray, source: int, rate: int) -> np.ndarray:
    """A wave (samples,) at another rate, by a windowed sinc."""
    common = math.gcd(source, rate)
    up, down = rate // common, source // common
    cutoff = ROLLOFF / max(up, down)
    half = math.ceil(ZEROS / cutoff)
    at = np.arange(-half, half + 1)
    h = cutoff * np.sinc(cutoff * at) * np.kaiser(2 * half + 1, BETA)
    h *= up / h.sum()
    margin = half // up + 1
    h, x = np.pad(h, up), np.pad(x, margin + 1)
    out = np.empty(-(-(len(x) - 2 * margin - 2) * rate // source))
    for begin in range(0, len(out), BLOCK):
        place = np.arange(begin, min(begin + BLOCK, len(out))) * down  # at `up` times the rate of the source
        nearby = (place // up)[:, None] + np.arange(-margin, margin + 1)
        tap = np.clip(place[:, None] - nearby * up + half + up, 0, len(h) - 1)
        out[begin : begin + BLOCK] = (h[tap] * x[np.clip(nearby + margin + 1, 0, len(x) - 1)]).sum(axis=1)
    return out
