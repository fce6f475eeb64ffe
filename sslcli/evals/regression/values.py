"""What evaluators of the task `value` share: labeled rows, errors with intervals, the modality's baselines, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Baselines, mean_and_std
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import affordable, field_baselines
from sslcli.evals.metrics.interval import Interval
from sslcli.evals.regression.errors import NAMES, error_intervals, errors
from sslcli.rng import derive
from sslcli.runtime.progress import track
from sslcli.views.modality import Baseline


@dataclass
class ValueOutputs:
    """Predictions of one model for the test samples that have a value, one row for each draw of labels."""

    ids: Tensor  # (n,) of the test samples
    y: Tensor  # (n,) float64
    predicted: Tensor  # (draws, n) float64
    labeled: int = 0  # training samples of a draw

    def table(self, data: EvalData) -> Csv:
        """A row for each test sample, with the mean of the predictions over draws of labels."""
        source = data.source("test")
        columns = self.ids.tolist(), self.y.tolist(), self.predicted.mean(dim=0).tolist()
        rows = [(i, source.name_of(i), y, predicted) for i, y, predicted in zip(*columns, strict=True)]
        return Csv(
            ("id", "sample", "value", "predicted"), rows, "true and predicted value of each test sample, by name"
        )


@dataclass
class ValueScores:
    """Metrics of one or more models: `rmse`, `mae` and `r2`, with a prefix for baselines, and their intervals. There is no `r2`
    where all test samples have one value."""

    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    draws: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by model and metric: one value per draw
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, outputs: ValueOutputs) -> None:
        prefix = f"{kind}." if kind else ""
        self.draws[kind] = dict(zip(NAMES, errors(outputs.y, outputs.predicted).tolist(), strict=True))
        if bool((outputs.y == outputs.y[0]).all()):
            del self.draws[kind]["r2"]
            self.notes = ["r2 is left out: all test samples have the same value"]
        for name, values in self.draws[kind].items():
            self.metrics |= mean_and_std(f"{prefix}{name}", values)
        self.intervals |= error_intervals(prefix, outputs.y, outputs.predicted, self.seed)


def predict_test(
    data: EvalData,
    amount: subsets.Amount,
    draws: int,
    fit: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    ids: tuple[Tensor, Tensor] | None = None,
) -> ValueOutputs:
    """Fits a model to each draw of labels, and predicts the test samples that have a value.

    `fit(draw, rows (m,), their values (m,), test rows (n,))` returns predictions (n,). `ids`: those of the training and of the test
    rows; by default of the features that were computed last."""
    train_ids, test_ids = (data.ids("train"), data.ids("test")) if ids is None else ids
    y, y_test = all_values(data, "train")[train_ids], all_values(data, "test")[test_ids]
    tested = known_values(y_test, "test", data.dataset.name)
    predicted, labeled = [], 0
    for index in track(range(draws), "draw of labels"):
        rows = draw_values(y, amount, data, index)
        predicted.append(fit(index, rows, y[rows], tested).double())
        labeled = len(rows)
    return ValueOutputs(test_ids[tested], y_test[tested], torch.stack(predicted), labeled)


def field_outputs(
    data: EvalData, amount: subsets.Amount, draws: int, baselines: Baselines
) -> Iterator[tuple[str, str, ValueOutputs]]:
    """Name, note and predictions of each of the modality's baselines."""
    known = field_baselines(data, baselines)
    labeled = len(draw_values(all_values(data, "train"), amount, data, 0)) if known else 0
    known = affordable(known, data, labeled, len(data.source("test")))
    if not known:
        return
    (x, train_ids), (x_test, test_ids) = data.samples("train"), data.samples("test")

    def fitter(name: str, baseline: Baseline) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        def fit(index: int, rows: Tensor, y: Tensor, tested: Tensor) -> Tensor:
            return baseline.fit(x[rows], y, derive(data.seed, "baseline", name, index))(x_test[tested])

        return fit

    for name, baseline in known.items():
        yield name, baseline.note, predict_test(data, amount, draws, fitter(name, baseline), (train_ids, test_ids))


def all_values(data: EvalData, split: Split) -> Tensor:
    """The values (n,) float64 of all samples of a split, NaN where unknown."""
    source = data.source(split)
    values = source.targets.get("value")
    return torch.full((len(source),), torch.nan, dtype=torch.float64) if values is None else values


def known_values(y: Tensor, split: str, name: str) -> Tensor:
    """The rows (m,) of y (n,) that have a value. DataError without any."""
    rows = torch.nonzero(y.isfinite()).flatten()
    if not len(rows):
        raise DataError(f"{name} has no values to predict in its {split} split", "sslcli data inspect")
    return rows


def draw_values(y: Tensor, amount: subsets.Amount, data: EvalData, index: int) -> Tensor:
    """Draw number `index` of a labeled subset: ascending rows (m,) of y (n,). RequestError for a number per class."""
    if amount.kind == "per class":
        raise RequestError(
            f"labels={amount}: {data.dataset.name} has a value to predict, and no classes", f"labels={amount.number:g}"
        )
    known_values(y, "train", data.dataset.name)
    return subsets.draw(torch.where(y.isfinite(), 0, -1), amount, data.seed, index)
