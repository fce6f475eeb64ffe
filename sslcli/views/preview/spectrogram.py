"""Spectrograms as previews: time from left to right, low bands at the bottom; and the clip itself, to listen to."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.preview.base import Drawn, Media, Preview, heat, rescale, to_image

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Spectrogram(Drawn):
    """Levels (F, T). `limits`: the least and the largest level of the colors. `seconds`: the length. `colors`: (3,
    F, T) in 0..1 in place of those of the levels. `clip`: (n,) int16 at `rate` samples per second, or None."""

    cell = (144, 84)
    levels: Tensor
    seconds: float
    limits: tuple[float, float] | None = None
    colors: Tensor | None = None
    clip: Tensor | None = None
    rate: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", self.levels.detach().cpu().float())

    def text(self) -> str:
        return f"spectrogram of {self.seconds:.2g} s, {len(self.levels)} bands"

    @classmethod
    def align(cls, previews: Sequence[Preview]) -> list[Preview]:
        own = [p.levels for p in previews if isinstance(p, Spectrogram) and p.colors is None]
        if not own:
            return list(previews)
        limits = min(float(x.min()) for x in own), max(float(x.max()) for x in own)
        return [replace(p, limits=limits) if isinstance(p, Spectrogram) else p for p in previews]

    def reduce(self) -> Spectrogram:
        """At most two values for a pixel."""
        (width, height), (bands, frames) = self.cell, self.levels.shape
        size = min(bands, 2 * height), min(frames, 2 * width)
        if size == (bands, frames):
            return self
        return replace(self, levels=F.adaptive_avg_pool2d(self.levels[None], size)[0])

    def overlay(self, colors: Tensor) -> Spectrogram:
        large = F.interpolate(colors.detach().cpu().float()[None], self.levels.shape, mode="nearest")[0]
        return replace(self, colors=0.35 * self._colors() + 0.65 * large, clip=None)

    def importance(self, weights: Tensor) -> Spectrogram:
        small = weights.detach().cpu().float()[None, None]
        large = F.interpolate(small, self.levels.shape, mode="bilinear", align_corners=False)[0, 0]
        return self.overlay(heat(rescale(large)))

    def difference(self, other: Preview) -> Preview:
        assert isinstance(other, Spectrogram), other
        return replace(self, levels=(other.levels - self.levels).abs(), limits=None, clip=None)

    def _colors(self) -> Tensor:
        if self.colors is not None:
            return self.colors
        low, high = self.limits or (float(self.levels.min()), float(self.levels.max()))
        return heat((self.levels - low) / ((high - low) or 1.0))

    def image(self, width: int, height: int) -> Image.Image:
        from PIL import Image

        return to_image(self._colors().flip(1)).resize((width, height), Image.Resampling.BILINEAR)

    def html(self) -> str:
        """The drawing, and the player where there is a clip."""
        drawing, player = super().html(), self.player()
        return drawing if player is None else f'<span class="preview">{drawing}{player}</span>'

    def media(self) -> Media | None:
        return None if self.clip is None else Media("audio/wav", to_wav(self.clip, self.rate))


def to_wav(clip: Tensor, rate: int) -> bytes:
    """A clip (n,) int16 as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, len(clip), "NONE", ""))
        file.writeframes(clip.to("cpu", torch.int16).numpy().astype("<i2").tobytes())
    return buffer.getvalue()
