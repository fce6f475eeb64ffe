"""Linear probe of the task `value`: ridge regression on frozen features, with raw inputs, random weights and the modality's own
baselines beside it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sslcli.evals.artefacts.value_plot import ValuePlot
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.classifier.confidence import FittedClassifier
from sslcli.evals.classifier.make import value_layer
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes
from sslcli.evals.fit.linear_probe import Standardizer
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.regression.ridge import ALPHA_GRID, Ridge, RidgeFit, choose_alpha
from sslcli.evals.regression.values import ValueOutputs, ValueScores, field_outputs, predict_test
from sslcli.runs import Record


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
    scores = ValueScores(data.seed)
    notes: list[str] = []
    protocol: Record = {}
    artefacts: dict[str, Any] = {}
    kept: FittedClassifier | None = None
    for kind, features in data.feature_sets(backbone, baselines).items():
        (x, _), (x_test, _) = features("train"), features("test")
        outputs, choices, first = _fit_ridge(x, x_test, data, amount, seeds, grid)
        of = f"alpha of the probe of {kind or 'the backbone'}"
        notes += choice_notes(choices, grid, of, "evaluator.strengths")
        scores.add(kind, outputs)
        if kind == "":
            kept = value_layer(*first, choices[0].value, x, data, outputs)
            protocol = {
                "task": "value",
                "labels": str(amount),
                "seeds": seeds,
                "std": "standard deviation over draws (n - 1)",
                "standardised": "by mean and standard deviation of all training features",
                "dim": x.shape[1],
                "splits": {"train": len(x), "labelled": outputs.labeled, "test": len(outputs.y)},
                "strength": _strength(choices, grid),
                "solver": {"name": "ridge regression by eigendecomposition"},
                "baselines": {},
            }
            artefacts = {
                "values.png": ValuePlot(outputs.y, outputs.predicted[0]),
                "values.csv": outputs.table(data),
            }
        else:
            protocol["baselines"][kind] = {"strength": _strength(choices, grid)}
    for name, note, outputs in field_outputs(data, amount, seeds, baselines):
        scores.add(name, outputs)
        protocol["baselines"][name] = {"note": note}
    if amount.kind == "all" and seeds > 1:
        notes.append(f"labels=all: the {seeds} draws differ only in the folds that choose alpha")
    protocol["notes"] = data.protocol_notes(baselines, notes + scores.notes)
    details = {"draws": scores.draws.pop(""), "baselines": scores.draws}
    return Result(scores.metrics, protocol, artefacts, details, scores.intervals, fitted=kept)


def _fit_ridge(
    train: Tensor, test: Tensor, data: EvalData, amount: subsets.Amount, seeds: int, grid: Grid
) -> tuple[ValueOutputs, list[Choice], tuple[Standardizer, RidgeFit]]:
    """Predictions, the penalty of each draw, and the regression of the first with the standardization of its features."""
    standardize = Standardizer(train)
    groups = data.groups("train")
    choices: list[Choice] = []
    fits: list[RidgeFit] = []

    def fit(index: int, rows: Tensor, y: Tensor, tested: Tensor) -> Tensor:
        x = standardize(train, rows)
        choices.append(choose_alpha(x, y, grid, data.seed, index, None if groups is None else groups[rows]))
        fits.append(Ridge(x, y).fit(choices[-1].value))
        return fits[-1].predict(standardize(test, tested))

    return predict_test(data, amount, seeds, fit), choices, (standardize, fits[0])


def _strength(choices: list[Choice], grid: Grid) -> Record:
    return {
        "alpha": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "bounds": [grid.values[0], grid.values[-1]],
    }
