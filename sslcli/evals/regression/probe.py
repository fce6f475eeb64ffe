"""Linear probe of the task `value`: ridge regression on frozen features, with raw inputs, random weights and the modality's own
baselines beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.artefacts.value_plot import ValuePlot
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, mean_and_std
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes
from sslcli.evals.fit.linear_probe import Standardizer
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import field_baselines
from sslcli.evals.metrics.interval import Interval
from sslcli.evals.regression.errors import NAMES, error_intervals, errors
from sslcli.evals.regression.ridge import ALPHA_GRID, Ridge, choose_alpha
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runtime.progress import track


def value_probe(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    strengths: list[float] | None,
    baselines: Baselines,
) -> Result:
    """`rmse`, `mae` and `r2` on the test split, and the same of the baselines; with several draws of labels each with `_std`.

    `strengths`: penalties of ridge regression (scikit-learn's alpha), or None for the grid."""
    grid = ALPHA_GRID if strengths is None else Grid.of(strengths)
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    notes: list[str] = []
    draws: dict[str, dict[str, list[float]]] = {}
    protocol: Record = {}
    artefacts: dict[str, Any] = {}

    def add(kind: str, y: Tensor, predicted: Tensor) -> None:
        prefix = f"{kind}." if kind else ""
        draws[kind] = dict(zip(NAMES, errors(y, predicted).tolist(), strict=True))
        for name, values in draws[kind].items():
            metrics.update(mean_and_std(f"{prefix}{name}", values))
        intervals.update(error_intervals(prefix, y, predicted, data.seed))

    for kind, features in data.feature_sets(backbone, baselines).items():
        found = _fit_ridge(features("train")[0], features("test")[0], data, amount, seeds, grid)
        of = f"alpha of the probe of {kind or 'the backbone'}"
        notes += choice_notes(found.choices, grid, of, "evaluator.strengths")
        add(kind, found.y, found.predicted)
        if kind == "":
            protocol = {
                "task": "value",
                "labels": str(amount),
                "seeds": seeds,
                "std": "standard deviation over draws (n - 1)",
                "standardised": "by mean and standard deviation of all training features",
                "dim": features("train")[0].shape[1],
                "splits": {
                    "train": len(features("train")[0]),
                    "labelled": found.labeled,
                    "test": len(found.y),
                },
                "strength": found.strength,
                "solver": {"name": "ridge regression by eigendecomposition"},
                "baselines": {},
            }
            artefacts = {
                "values.png": ValuePlot(found.y, found.predicted[0]),
                "values.csv": _table(found, data),
            }
        else:
            protocol["baselines"][kind] = {"strength": found.strength}
    for name, note, y, predicted in _field_values(data, amount, seeds, baselines):
        add(name, y, predicted)
        protocol["baselines"][name] = {"note": note}
    if amount.kind == "all" and seeds > 1:
        notes.append(f"labels=all: the {seeds} draws differ only in the folds that choose alpha")
    protocol["notes"] = data.protocol_notes(baselines, notes)
    details = {"draws": draws.pop(""), "baselines": draws}
    return Result(metrics, protocol, artefacts, details, intervals)


def _table(found: _RidgeOutputs, data: EvalData) -> Csv:
    """A row for each test sample, with the mean of the predictions over draws of labels."""
    source = data.source("test")
    columns = found.ids.tolist(), found.y.tolist(), found.predicted.mean(dim=0).tolist()
    rows = [(i, source.name_of(i), y, predicted) for i, y, predicted in zip(*columns, strict=True)]
    return Csv(("id", "sample", "value", "predicted"), rows, "true and predicted value of each test sample, by name")


@dataclass
class _RidgeOutputs:
    ids: Tensor  # (n,) of the test samples
    y: Tensor  # (n,) float64
    predicted: Tensor  # (draws, n) float64
    choices: list[Choice]
    labeled: int
    strength: Record


def _fit_ridge(
    train: Tensor, test: Tensor, data: EvalData, amount: subsets.Amount, seeds: int, grid: Grid
) -> _RidgeOutputs:
    y, y_test = data.targets("train"), data.targets("test")
    tested = known_values(y_test, "test", data.dataset.name)
    standardize = Standardizer(train)
    x_test, groups = standardize(test, tested), data.groups("train")
    choices, predicted = [], []
    for index in track(range(seeds), "probe, draw of labels"):
        ids = draw_values(y, amount, data, index)
        x = standardize(train, ids)
        choice = choose_alpha(x, y[ids], grid, data.seed, index, None if groups is None else groups[ids])
        choices.append(choice)
        predicted.append(Ridge(x, y[ids]).fit(choice.value).predict(x_test))
    strength = {
        "alpha": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "bounds": [grid.values[0], grid.values[-1]],
    }
    return _RidgeOutputs(data.ids("test")[tested], y_test[tested], torch.stack(predicted), choices, len(ids), strength)


def _field_values(
    data: EvalData, amount: subsets.Amount, seeds: int, baselines: Baselines
) -> list[tuple[str, str, Tensor, Tensor]]:
    """Name, note, values (n,) and predictions (draws, n) of each of the modality's baselines."""
    known = field_baselines(data, baselines)
    if not known:
        return []
    x, _ = data.samples("train")
    x_test, _ = data.samples("test")
    y, y_test = data.targets("train"), data.targets("test")
    tested = known_values(y_test, "test", data.dataset.name)
    rows = [draw_values(y, amount, data, index) for index in range(seeds)]
    results = []
    for name, baseline in track(list(known.items()), "baselines"):
        fits = [baseline.fit(x[ids], y[ids], derive(data.seed, "baseline", name, i)) for i, ids in enumerate(rows)]
        predicted = torch.stack([predict(x_test[tested]).double() for predict in fits])
        results.append((name, baseline.note, y_test[tested], predicted))
    return results


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
