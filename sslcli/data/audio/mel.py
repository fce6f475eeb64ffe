"""Log-mel spectrograms: the settings, the filters, and the transform on any device.

The values are those of `librosa.feature.melspectrogram` with `center=True`, a periodic Hann window of `n_fft`
samples, power 2 and zeros beyond the ends, then `log(mel + log_epsilon)`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from sslcli.config import typecheck

SCALES, NORMS, LOUDNESS = ("htk", "slaney"), ("slaney", "none"), ("keep", "equal")
LEVEL, MAX_GAIN = (
    0.1,
    100.0,
)  # of equal loudness: the root mean square (-20 dB of full scale), and the largest factor (40 dB)
MAX_RATE, MAX_FFT, MAX_BANDS = 384_000, 1 << 16, 1024
BREAK_HZ, HZ_PER_MEL, LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27  # of the Slaney scale


@dataclass(frozen=True)
class MelSettings:
    """rate: samples per second. n_fft: samples of a window and of its Fourier transform. hop: samples between frames.
    bands: number of filters, from f_min to f_max Hz. scale: htk, 2595 log10(1 + f / 700), or slaney, linear below 1
    kHz. norm: slaney, filters of equal area, or none, of equal height. log_epsilon: added to a power before its
    natural logarithm. loudness: `keep`, or `equal`, which first scales the wave as `equal_loudness` does.

    ValueError, with a sentence that begins with the name of the field, for values out of range."""

    rate: int
    n_fft: int
    hop: int
    bands: int
    f_min: float
    f_max: float
    scale: str = "htk"
    norm: str = "slaney"
    log_epsilon: float = 1e-6
    loudness: str = "keep"

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "rate": (100, MAX_RATE),
            "n_fft": (16, MAX_FFT),
            "hop": (1, self.n_fft),
            "bands": (4, MAX_BANDS),
            "f_min": (0, self.rate / 2),
            "f_max": (0, self.rate / 2),
            "log_epsilon": (1e-30, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {getattr(self, name)}")
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min: expected less than f_max={self.f_max:g}, got {self.f_min:g}")
        for name, choices in (("scale", SCALES), ("norm", NORMS), ("loudness", LOUDNESS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected {' or '.join(choices)}, got {getattr(self, name)}")

    @property
    def log_floor(self) -> float:
        """The value of no sound."""
        return math.log(self.log_epsilon)

    def to_json(self) -> dict[str, Any]:
        """Without `loudness` where it is kept, as in earlier versions."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("loudness", "keep")}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """The inverse of `to_json`. ValueError for anything else."""
        types: dict[str, Any] = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(cls)}
        content = {"loudness": "keep"} | content if isinstance(content, dict) else content
        if not isinstance(content, dict) or content.keys() != types.keys():
            raise ValueError(f"mel: expected the keys {', '.join(types)}")
        for name, kind in types.items():
            if not typecheck.matches_type(content[name], kind):
                raise ValueError(f"mel.{name}: expected {kind.__name__}")
        return cls(**content)

    def samples(self, frames: int) -> int:
        """The fewest samples that have this number of frames."""
        return (frames - 1) * self.hop

    def frames(self, samples: int) -> int:
        """The number of frames of a clip."""
        return 1 + samples // self.hop

    def describe(self) -> str:
        window, step = (1000 * samples / self.rate for samples in (self.n_fft, self.hop))
        bands = f"{self.bands} mel bands from {self.f_min:g} to {self.f_max:g} Hz"
        loudness = ", of equal loudness" if self.loudness == "equal" else ""
        return f"{bands}, a window of {window:.0f} ms every {step:.3g} ms{loudness}"

    def empty_bands(self) -> int:
        """The number of bands in which there is no frequency of the Fourier transform."""
        return int((filters(self) == 0).all(dim=1).sum())


def to_mel(hz: Tensor, scale: str) -> Tensor:
    """Frequencies, float64, on the mel scale."""
    if scale == "htk":
        return 2595 * torch.log10(1 + hz / 700)
    above = BREAK_HZ / HZ_PER_MEL + torch.log(hz.clamp(min=BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return torch.where(hz < BREAK_HZ, hz / HZ_PER_MEL, above)


def to_hz(mel: Tensor, scale: str) -> Tensor:
    """The inverse of `to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    start = BREAK_HZ / HZ_PER_MEL
    above = BREAK_HZ * torch.exp(LOG_STEP * (mel - start).clamp(min=0))
    return torch.where(mel < start, mel * HZ_PER_MEL, above)


def filters(settings: MelSettings) -> Tensor:
    """(bands, 1 + n_fft // 2) float32: triangles whose corners are equally spaced on the mel scale."""
    ends = to_mel(torch.tensor([settings.f_min, settings.f_max], dtype=torch.float64), settings.scale)
    corners = to_hz(
        torch.linspace(float(ends[0]), float(ends[1]), settings.bands + 2, dtype=torch.float64), settings.scale
    )
    bins = torch.arange(1 + settings.n_fft // 2, dtype=torch.float64) * (settings.rate / settings.n_fft)
    ramps = bins - corners[:, None]  # (bands + 2, bins)
    width = corners.diff()[:, None]
    rising, falling = ramps[:-2] / width[:-1], -ramps[2:] / width[1:]
    out = rising.minimum(falling).clamp(min=0)
    if settings.norm == "slaney":
        out = out * (2 / (corners[2:] - corners[:-2]))[:, None]
    return out.float()


def equal_loudness(x: Tensor) -> Tensor:
    """Waves (B, n), each scaled so that its root mean square between the first and the last value that is not zero is 0.1, by a
    factor of at most 100. Zeros around a clip, with which it is filled up, do not count."""
    sound = x != 0
    first, after = sound.byte().argmax(dim=1), x.shape[1] - sound.flip(1).byte().argmax(dim=1)
    power = x.square().sum(dim=1) / (after - first).clamp(min=1)
    return x * (LEVEL / power.sqrt()).clamp(max=MAX_GAIN)[:, None]


class LogMel:
    """Waves (B, n) float32 in -1..1 -> (B, bands, 1 + n // hop) float32. Constants are kept for each device."""

    def __init__(self, settings: MelSettings):
        self.settings = settings
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        window, weights = self._on(x.device)
        x = equal_loudness(x) if self.settings.loudness == "equal" else x
        n_fft, hop = self.settings.n_fft, self.settings.hop
        spectrum = torch.stft(x, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
        real, imaginary = torch.view_as_real(spectrum).square_().unbind(dim=3)
        power = real + imaginary
        return torch.log(weights @ power + self.settings.log_epsilon)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            window = torch.hann_window(self.settings.n_fft, periodic=True, dtype=torch.float64).float()
            self._constants[device] = window.to(device), filters(self.settings).to(device)
        return self._constants[device]
