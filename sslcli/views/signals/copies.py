"""Near copies of series, and series that hold next to nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.copies import NearCopies, unit

COARSE = 64  # places of a descriptor
SHIFT = 0.06  # of the length: how far one series may be shifted
MISSING = 0.5  # of the values of a series


class SeriesCopies(NearCopies):
    """Candidates have similar outlines. They are compared by the correlation of their values over all channels, the largest over
    shifts within 6 % of the length; a missing value counts as 0, the mean."""

    note: ClassVar[str] = "other scales and offsets, little noise, shifts by at most 6 % of the length"
    candidate: ClassVar[float] = 0.75
    threshold: ClassVar[float] = 0.99

    def describe(self, x: Tensor) -> Tensor:
        outline = F.adaptive_avg_pool1d(x.nan_to_num(0.0), min(x.shape[2], COARSE))
        return unit(outline.flatten(1))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        length = a.shape[2]
        spectra = [torch.fft.rfft(unit(x.nan_to_num(0.0).flatten(1)).view_as(x)) for x in (a, b)]
        correlation = torch.fft.irfft((spectra[0] * spectra[1].conj()).sum(dim=1), n=length)
        most = max(1, round(SHIFT * length))
        near = torch.cat([torch.arange(most + 1), torch.arange(length - most, length)]) % length
        return correlation[:, near.to(a.device)].amax(dim=1)


def defects(x: Tensor, padded: bool) -> dict[str, Tensor]:
    """Scores (B,) of series (B, C, T) by the name of a defect; NaN for series without it. missing: the share of missing values, of
    `padded` series up to their last value; constant: the largest standard deviation of a channel, about 0; empty_channel: the
    number of channels without any value, beside others with values."""
    known = ~x.isnan()
    steps = torch.arange(1, x.shape[2] + 1, device=x.device)
    length = (known.any(dim=1) * steps).amax(dim=1).clamp(min=1) if padded else steps[-1]
    share = 1 - known.flatten(1).sum(dim=1) / (length * x.shape[1])
    count = known.sum(dim=2)
    empty = (count == 0).sum(dim=1).to(share.dtype)
    count = count.clamp(min=1)
    filled = x.nan_to_num(0.0)
    mean = filled.sum(dim=2) / count
    spread = ((filled - mean[:, :, None]).square() * known).sum(dim=2).div(count).sqrt().amax(dim=1)
    return {
        "missing": share.where(share > MISSING, torch.nan),
        "constant": spread.where((spread < 1e-4) & (share <= MISSING), torch.nan),
        "empty_channel": empty.where((empty > 0) & (share <= MISSING), torch.nan),
    }
