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
    """Rows (b, d) of a regression for forecasts from the origins (n,), and targets (b, k). `relative`: targets are differences from
    what is known of the window. `dim`: d of the features. `values`: the numbers of a window that `rows` returns, without
    targets."""

    relative = True
    dim: int
    values: int

    def training(self, origins: Tensor) -> Tensor:
        """Those of the training origins that a regression is fitted on: at most MOST_ROWS, evenly spaced."""
        return evenly(origins, MOST_ROWS)

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
        self.dim = self.values = features.shape[1]

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
        self.forecasts, self.dim, self.values = forecasts, forecasts.window, forecasts.channels * forecasts.window

    def rows(self, origins: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        x = self.forecasts.windows(origins)
        last = x[:, :, -1:]
        return (x - last).flatten(0, 1), (self.forecasts.targets(origins, horizon) - last).flatten(0, 1)

    def restore(self, predicted: Tensor, origins: Tensor, horizon: int) -> Tensor:
        last = self.forecasts.windows(origins)[:, :, -1:]
        return predicted.view(len(origins), -1, horizon) + last


class ChannelInputs(Inputs):
    """A row of features for each channel of a window, which predicts that channel: one regression for all channels, as the linear
    probe of PatchTST (Nie et al., ICLR 2023, Sec. 4.2).

    Targets are differences from the mean of the window. Where windows are standardized one by one (`dataset.scale=sample`), rows
    are multiplied by the standard deviation of the window, so that a prediction is that of the standardized values, scaled back
    (the paper's instance normalization), and errors weigh as they count."""

    def __init__(self, forecasts: Forecasts, features: Tensor, origins: Tensor):
        """features: (N, C, d) of the origins (N,), ascending, among them all validation and test windows."""
        self.forecasts, self.features, self.known = forecasts, features, origins
        self.dim, self.values = features.shape[2], features.shape[1] * features.shape[2]

    def rows(self, origins: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        mean, std = self._scale(origins)
        z = self.features[torch.searchsorted(self.known, origins)]
        if self.forecasts.timeline.scale == "sample":
            z = torch.cat([z * std, std], dim=2)
        return z.flatten(0, 1), (self.forecasts.targets(origins, horizon) - mean).flatten(0, 1)

    def restore(self, predicted: Tensor, origins: Tensor, horizon: int) -> Tensor:
        return predicted.view(len(origins), -1, horizon) + self._scale(origins)[0]

    def training(self, origins: Tensor) -> Tensor:
        return origins[torch.isin(origins, self.known)]

    def _scale(self, origins: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, C, 1) of each channel of the windows."""
        x = self.forecasts.windows(origins)
        return x.mean(dim=2, keepdim=True), x.std(dim=2, keepdim=True, correction=0)


def evenly(origins: Tensor, most: int) -> Tensor:
    """At most so many origins, evenly spaced."""
    return origins if len(origins) <= most else origins[torch.linspace(0, len(origins) - 1, most).long()]


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
        test, size = (
            self.forecasts.origins("test", self.horizon),
            self.forecasts.channels * (self.horizon + self.forecasts.window),
        )
        return mean_errors(self.forecasts, test, self.horizon, self.predict, size + self.inputs.values)


def regress(inputs: Inputs, forecasts: Forecasts, horizon: int, alphas: tuple[float, ...]) -> Regression:
    """Ridge regression on the training windows whose targets are complete."""
    train, val = (forecasts.origins(part, horizon) for part in ("train", "val"))
    train = inputs.training(train)
    size = forecasts.channels * (horizon + forecasts.window) + inputs.values

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for part in split_blocks(train, size):
            part = part[complete(forecasts.targets(part, horizon))]
            if len(part):
                yield inputs.rows(part, horizon)

    model = ManyRidge(blocks)
    best: Regression | None = None
    for alpha in alphas:
        one = Regression(forecasts, inputs, horizon, model, model.weights(alpha), alpha, 0.0, len(train))
        one = replace(one, error=mean_errors(forecasts, val, horizon, one.predict, size)["mse"])
        best = one if best is None or one.error < best.error else best
    assert best is not None, alphas
    return best


def mean_errors(
    forecasts: Forecasts, origins: Tensor, horizon: int, predict: Callable[[Tensor], Tensor], size: int
) -> dict[str, float]:
    """`mse` and `mae` of predictions (n, C, horizon) over all known targets, scaled as in training. `size`: numbers of a window in
    memory."""
    squared = absolute = count = 0.0
    for part in split_blocks(origins, size):
        sums = errors(predict(part), forecasts.targets(part, horizon))
        squared, absolute, count = squared + sums[0], absolute + sums[1], count + sums[2]
    return {"mse": squared / max(count, 1), "mae": absolute / max(count, 1)}
