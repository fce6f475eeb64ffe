"""Near copies of clips, and clips that hold next to nothing."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.views.copies import NearCopies, unit

BANDS, TIMES = 16, 16  # of a descriptor
SHIFT = 0.1  # of the length: how far one clip may be shifted
SILENT = 10.0  # decibels


class ClipCopies(NearCopies):
    """Candidates have similar outlines. They are compared by the correlation of the detail of their spectrograms, what differs
    from the mean of 5 x 5 values: two takes of one word by one speaker have the outline in common, not the detail. The largest
    is taken over shifts in time within 10 % of the view."""

    note: ClassVar[str] = "other encodings and levels, little noise, shifts by at most 10 % of the view"
    candidate: ClassVar[float] = 0.8
    threshold: ClassVar[float] = 0.85

    def describe(self, x: Tensor) -> Tensor:
        size = min(x.shape[2], BANDS), min(x.shape[3], TIMES)
        return unit(F.adaptive_avg_pool2d(x, size).flatten(1))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        length = a.shape[3]
        spectra = [torch.fft.rfft(unit(detail(x).flatten(1)).view_as(x)) for x in (a, b)]
        correlation = torch.fft.irfft((spectra[0] * spectra[1].conj()).sum(dim=(1, 2)), n=length)
        most = max(1, round(SHIFT * length))
        near = torch.cat([torch.arange(most + 1), torch.arange(length - most, length)]) % length
        return correlation[:, near.to(a.device)].amax(dim=1)


def detail(x: Tensor) -> Tensor:
    """Spectrograms (B, 1, F, T) without the mean of 5 x 5 values around each."""
    return x - F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)


def defects(x: Tensor, preprocessor: AudioPreprocessor) -> dict[str, Tensor]:
    """Scores (B,) of clean views (B, 1, F, T) by the name of a defect; NaN for clips without it. silent: by how many decibels
    the loudest value exceeds that of no sound, less than 10."""
    mean, std = (torch.tensor(v, device=x.device)[:, None] for v in (preprocessor.mean, preprocessor.std))
    above = (x[:, 0] * std + mean).amax(dim=(1, 2)) - preprocessor.mel.log_floor
    level = (above * (10 / math.log(10))).clamp(min=0)
    return {"silent": level.where(level < SILENT, torch.nan)}
