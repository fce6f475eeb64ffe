"""Recordings in time, for forecasts: which steps are for training, validation and testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.errors import DataError, RequestError

HINT = "dataset.time_split=[0.6,0.2,0.2]"


@dataclass(frozen=True)
class Timeline:
    """recordings: (C, T) float32 each, NaN where a value is missing. ends: of each, the steps at which training, validation and
    test end. scale: how windows are scaled, see `dataset.scale`."""

    recordings: list[Tensor]
    ends: list[tuple[int, int, int]]
    scale: str = "train"

    @property
    def train(self) -> list[Tensor]:
        return [r[:, :end] for r, (end, _, _) in zip(self.recordings, self.ends, strict=True)]

    @property
    def test(self) -> list[Tensor]:
        return [r[:, begin:end] for r, (_, begin, end) in zip(self.recordings, self.ends, strict=True)]


def split_ends(steps: int, parts: Sequence[float]) -> tuple[int, int, int]:
    """Where training, validation and test end in a recording of `steps` steps. `parts`: three numbers of steps, or fractions.

    RequestError for other numbers, DataError where the recording is too short."""
    given = list(parts) if isinstance(parts, (list, tuple)) or hasattr(parts, "__iter__") else []
    numbers = len(given) == 3 and all(isinstance(p, (int, float)) and not isinstance(p, bool) and p > 0 for p in given)
    if not numbers:
        raise RequestError(
            f"dataset.time_split={parts}: expected three numbers above 0: training, validation, test", HINT
        )
    if all(float(p).is_integer() for p in given):
        first, second, third = (int(p) for p in given)
    elif sum(given) <= 1 + 1e-9:
        first, second = round(given[0] * steps), round(given[1] * steps)
        third = min(round(given[2] * steps), steps - first - second)
    else:
        raise RequestError(f"dataset.time_split={parts}: fractions must sum to at most 1", HINT)
    if first + second + third > steps or min(first, second, third) < 1:
        raise DataError(f"dataset.time_split={parts}: a recording has {steps:,} steps only", HINT)
    return first, first + second, first + second + third


def split_in_time(recordings: Sequence[Tensor], parts: Sequence[float], scale: str) -> Timeline:
    return Timeline(list(recordings), [split_ends(r.shape[1], parts) for r in recordings], scale)


def standardize_samples(x: Tensor) -> Tensor:
    """Samples (n, C, T) with zero mean and unit standard deviation in each channel.

    Missing values stay missing, and a channel that is constant becomes 0."""
    known = ~x.isnan()
    count = known.sum(dim=2, keepdim=True).clamp(min=1)
    centered = x - x.nan_to_num(0.0).sum(dim=2, keepdim=True, dtype=torch.float64).div(count).float()
    variance = centered.nan_to_num(0.0).square().sum(dim=2, keepdim=True, dtype=torch.float64).div(count)
    largest = x.nan_to_num(0.0).abs().amax(dim=2, keepdim=True)
    std = variance.sqrt().float()
    return torch.where(std > 1e-6 * largest, centered / std, torch.where(known, 0.0, torch.nan))
