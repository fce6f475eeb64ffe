"""What forecasts are made of: features of the last window, the window itself, its last value, or its last period."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcli.data.recordings.forecasts import Forecasts, complete, errors
from sslcli.evals.forecasting.ridge import ManyRidge

BLOCK_VALUES = 1 << 22  # of targets at a time
MOST_ROWS = 100_000  # training windows of a regression, evenly spaced, as in TS2Vec's code


class Inputs(ABC):
    """Rows (b, d) of a regression for forecasts from the origins (n,), and targets (b, k)."""

    @abstractmethod
    def rows(self, origins: Tensor, horizon: int) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def restore(self, predicted: Tensor, origins: Tensor, horizon: int) -> Tensor:
        """Predictions (b, k) as (n, C, horizon)."""


class FeatureInputs(Inputs):
    """A row of features for each origin, which predicts all channels and steps; `relative`: their change from the last value."""

    def __init__(self, forecasts: Forecasts, features: Tensor, origins: Tensor, relative: bool = False):
        """features: (N, d) of the origins (N,), ascending."""
        self.forecasts, self.features, self.known, self.relative = forecasts, features, origins, relative

    def rows(self, origins: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        z = self.features[torch.searchsorted(self.known, origins)]
        return z, (self.forecasts.targets(origins, horizon) - self._last(origins)).flatten(1)

    def restore(self, predicted: Tensor, origins: Tensor, horizon: int) -> Tensor:
        return predicted.view(len(origins), -1, horizon) + self._last(origins)

    def _last(self, origins: Tensor) -> Tensor:
        """(n, C, 1)"""
        last = self.forecasts.windows(origins)[:, :, -1:]
        return last if self.relative else torch.zeros_like(last)


class WindowInputs(Inputs):
    """A row for each channel of a window, minus its last value, which predicts that channel: one linear map for all channels, as
    NLinear of Zeng et al., "Are transformers effective for time series forecasting?", AAAI 2023, with ridge regression."""

    def __init__(self, forecasts: Forecasts):
        self.forecasts = forecasts

    def rows(self, origins: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        x = self.forecasts.windows(origins)
        last = x[:, :, -1:]
        return (x - last).flatten(0, 1), (self.forecasts.targets(origins, horizon) - last).flatten(0, 1)

    def restore(self, predicted: Tensor, origins: Tensor, horizon: int) -> Tensor:
        last = self.forecasts.windows(origins)[:, :, -1:]
        return predicted.view(len(origins), -1, horizon) + last


def split_blocks(origins: Tensor, values: int) -> Iterator[Tensor]:
    """Blocks of origins with at most so many `values` each in memory."""
    yield from origins.split(max(1, BLOCK_VALUES // values))


@dataclass(frozen=True)
class Regression:
    """inputs: what it is fitted to. alpha, error: its penalty, chosen on validation windows, and the squared error there. rows: the
    number of training windows."""

    forecasts: Forecasts
    inputs: Inputs
    horizon: int
    model: ManyRidge
    weights: Tensor
    alpha: float
    error: float
    rows: int

    def predict(self, origins: Tensor) -> Tensor:
        """(n, C, horizon), scaled as in training."""
        rows, _ = self.inputs.rows(origins, self.horizon)
        return self.inputs.restore(self.model.predict(rows, self.weights), origins, self.horizon)

    def test(self) -> dict[str, float]:
        return mean_errors(self.forecasts, self.forecasts.origins("test", self.horizon), self.horizon, self.predict)


def regress(inputs: Inputs, forecasts: Forecasts, horizon: int, alphas: tuple[float, ...]) -> Regression:
    """Ridge regression on the training windows whose targets are complete."""
    train, val = (forecasts.origins(part, horizon) for part in ("train", "val"))
    if len(train) > MOST_ROWS:
        train = train[torch.linspace(0, len(train) - 1, MOST_ROWS).long()]
    size = forecasts.channels * (horizon + forecasts.window)

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for part in split_blocks(train, size):
            part = part[complete(forecasts.targets(part, horizon))]
            if len(part):
                yield inputs.rows(part, horizon)

    model = ManyRidge(blocks)
    best: Regression | None = None
    for alpha in alphas:
        one = Regression(forecasts, inputs, horizon, model, model.weights(alpha), alpha, 0.0, len(train))
        one = replace(one, error=mean_errors(forecasts, val, horizon, one.predict)["mse"])
        best = one if best is None or one.error < best.error else best
    assert best is not None, alphas
    return best


def mean_errors(
    forecasts: Forecasts, origins: Tensor, horizon: int, predict: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """`mse` and `mae` of predictions (n, C, horizon) over all known targets, scaled as in training."""
    squared = absolute = count = 0.0
    for part in split_blocks(origins, forecasts.channels * (horizon + forecasts.window)):
        sums = errors(predict(part), forecasts.targets(part, horizon))
        squared, absolute, count = squared + sums[0], absolute + sums[1], count + sums[2]
    return {"mse": squared / max(count, 1), "mae": absolute / max(count, 1)}
