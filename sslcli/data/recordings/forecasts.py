"""Windows of recordings that are divided in time, and what follows them: the samples of a forecast.

Values are scaled by mean and standard deviation of each channel over the training steps, as is customary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sslcli.data.dataset import ArraySource
from sslcli.data.recordings.gaps import fill_gaps
from sslcli.data.stats import series_stats
from sslcli.data.storage import Windowed
from sslcli.data.timeline import Timeline, standardize_samples

Part = Literal["train", "val", "test"]
PERIODIC = 0.2  # autocorrelation from which recordings are called periodic


class Forecasts:
    """An origin is the place, in all recordings one after another, of the first step that a forecast predicts.

    `window` steps before it are known."""

    def __init__(self, timeline: Timeline, window: int):
        self.timeline, self.window = timeline, window
        lengths = torch.tensor([r.shape[1] for r in timeline.recordings])
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        raw = torch.cat(timeline.recordings, dim=1)
        mean, std, _ = series_stats(torch.cat(timeline.train, dim=1)[None])
        self.flat = (raw - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]  # (C, total)
        self._raw = raw.T.contiguous()

    @property
    def channels(self) -> int:
        return len(self.flat)

    def origins(self, part: Part, horizon: int) -> Tensor:
        """(n,) int64: all origins whose `horizon` steps lie in a part. The window may begin in an earlier part, not in another
        recording."""
        found = []
        for offset, ends in zip(self.offsets[:-1].tolist(), self.timeline.ends, strict=True):
            bounds = (0, *ends)
            at = ("train", "val", "test").index(part)
            first, last = max(bounds[at], self.window), bounds[at + 1] - horizon
            found.append(torch.arange(offset + first, offset + last + 1) if last >= first else torch.empty(0).long())
        return torch.cat(found)

    def source(self, origins: Tensor) -> ArraySource:
        """The windows (n, C, window) before the origins, in their own units."""
        of = torch.searchsorted(self.offsets, origins, right=True)
        finish = standardize_samples if self.timeline.scale == "sample" else None
        return ArraySource(Windowed(self._raw, origins - self.window, self.offsets[of], self.window, finish))

    def windows(self, origins: Tensor) -> Tensor:
        """(n, C, window) scaled values before the origins; what is missing is interpolated within the window."""
        return fill_gaps(self._steps(origins - self.window, self.window))[0]

    def targets(self, origins: Tensor, horizon: int) -> Tensor:
        """(n, C, horizon) scaled values, NaN where one is missing."""
        return self._steps(origins, horizon)

    def seasonal(self, origins: Tensor, horizon: int, period: int) -> Tensor:
        """(n, C, horizon): the last `period` known steps again and again."""
        return self.windows(origins)[:, :, self.window - period + torch.arange(horizon) % period]

    def period(self) -> int | None:
        """The lag, of 2 steps to a window, with the largest local maximum of the autocorrelation of the training steps, over all
        channels; None where that is below 0.2."""
        longest = max(self.timeline.train, key=lambda r: r.shape[1])
        x = standardize_samples(fill_gaps(longest[None])[0])[0].double()
        n = x.shape[1]
        power = torch.fft.rfft(x, n=2 * n).abs().square()
        lags = torch.fft.irfft(power)[:, : min(self.window, n - 2) + 2].mean(dim=0)
        acf = lags / lags[0].clamp(min=1e-12)
        inner = acf[2:-1]
        peaks = (inner >= acf[1:-2]) & (inner > acf[3:])
        if not bool(peaks.any()):
            return None
        best = int(torch.where(peaks, inner, -1.0).argmax())
        return best + 2 if float(inner[best]) >= PERIODIC else None

    def _steps(self, starts: Tensor, count: int) -> Tensor:
        return self.flat[:, starts[:, None] + torch.arange(count)].transpose(0, 1)


def errors(predicted: Tensor, target: Tensor) -> tuple[float, float, int]:
    """The sums of squared and of absolute errors, and the number, of known targets."""
    known = ~target.isnan()
    error = (predicted - target)[known].double()
    return float(error.square().sum()), float(error.abs().sum()), int(known.sum())


def complete(target: Tensor) -> Tensor:
    """(n,) bool: the rows of (n, C, H) without a missing value."""
    return ~target.flatten(1).isnan().any(dim=1)
