"""Fine-tuning for the task `value`: the backbone and a linear head trained by squared error, from the run and from random weights.

The training is that of classes (`finetuning/training.py`); the head begins with the ridge regression of the probe.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.data import notify
from sslcli.errors import RequestError
from sslcli.evals.artefacts.value_plot import ValuePlot
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.evals.classifier.make import finetuned_value
from sslcli.evals.finetuning.learning_rate import rate_protocol
from sslcli.evals.finetuning.predictions import WORDS, mean_curve, say_length, starting_backbone, training_protocol
from sslcli.evals.finetuning.recipe import Recipe, length_notes
from sslcli.evals.finetuning.training import Trained, train_values
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.regression.ridge_layer import fit_ridge_layer
from sslcli.evals.regression.values import (
    ValueOutputs,
    ValueScores,
    all_values,
    draw_values,
    field_outputs,
    known_values,
)
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runtime.progress import track


@dataclass
class TrainedValues:
    """Models of several draws of labels from one start, and what they predict for the test samples."""

    outputs: ValueOutputs
    first: Trained
    rates: list[Choice] = field(default_factory=list)
    curves: list[dict[str, list[float]]] = field(default_factory=list)


def check_recipe(recipe: Recipe) -> None:
    """RequestError for settings that need classes."""
    for name in ("mixup", "cutmix", "label_smoothing"):
        if getattr(recipe, name):
            raise RequestError(
                f"evaluator.{name}={getattr(recipe, name):g} needs classes, and the data set has a value to predict",
                f"evaluator.{name}=0",
            )


def value_finetune(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    recipe: Recipe,
    starts: dict[str, str],
    head: str,
    baselines: bool,
    notes: list[str],
) -> Result:
    """`rmse`, `mae` and `r2` on the test split after the last step, and the same of the other starts and the modality's baselines;
    with several draws of labels each with `_std`. `starts`: prefix of the metrics -> run, scratch or given."""
    scores = ValueScores(data.seed)
    grid = Grid.of(recipe.rates)
    trained = {
        kind: measure_values(backbone, data, amount, range(seeds), recipe, start, head)
        for kind, start in starts.items()
    }
    protocol: Record = {"baselines": {}}
    for kind, models in trained.items():
        scores.add(kind, models.outputs)
        what = f"learning rate{f' {kind}' if kind else ''}"
        notes = notes + choice_notes(models.rates, grid, what, "evaluator.lr")
        if kind:
            protocol["baselines"][kind] = {"lr": rate_protocol(models.rates, grid)}
    for name, note, outputs in field_outputs(data, amount, seeds, baselines):
        scores.add(name, outputs)
        protocol["baselines"][name] = {"note": note}
    main = trained[""]
    notes = notes + length_notes(recipe, main.outputs.labeled, main.first.length)
    protocol |= {
        "task": "value",
        "labels": str(amount),
        "seeds": seeds,
        "std": "standard deviation over draws (n - 1)",
        "start": starts[""],
        "head": head if starts[""] == "run" else "random",
        "splits": {"labelled": main.outputs.labeled, "test": len(main.outputs.y)},
        **training_protocol(recipe, main.rates, main.first.length),
        "notes": [*notes, *scores.notes],
    }
    artefacts: dict[str, Any] = {
        "values.png": ValuePlot(main.outputs.y, main.outputs.predicted[0]),
        "values.csv": main.outputs.table(data),
    }
    details = {
        "training": {kind or starts[""]: mean_curve(models.curves) for kind, models in trained.items()},
        "draws": scores.draws.pop(""),
        "baselines": scores.draws,
    }
    fitted = finetuned_value(main.first, data, main.outputs)
    return Result(scores.metrics, protocol, artefacts, details, scores.intervals, fitted=fitted)


def measure_values(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    draws: range,
    recipe: Recipe,
    start: str,
    head: str = "probe",
) -> TrainedValues:
    """Trains and tests once for each of `draws` of labels. `start`: run, scratch or given, see `starting_backbone`."""
    values, truth = all_values(data, "train"), all_values(data, "test")
    tested = known_values(truth, "test", data.dataset.name)
    predicted: list[Tensor] = []
    models: TrainedValues | None = None
    for index in track(draws, f"{WORDS[start]}, {amount}, draw of labels"):
        ids = draw_values(values, amount, data, index)
        if index == 0:
            say_length(recipe, len(ids), f"{WORDS[start]}, labels={amount}")
        subject = starting_backbone(backbone, data, start, index)
        trained = train_values(
            subject,
            data,
            ids,
            values[ids],
            recipe,
            derive(data.seed, "finetune", index),
            head=ridge_head(subject, data) if start != "scratch" and head == "probe" else None,
            on_step=functools.partial(notify.show_progress, "step"),
        )
        seen, outputs = trained.logits(data, data.batches("test", tested, windows=True))
        if models is None:  # unreadable samples are left out of every draw
            models = TrainedValues(ValueOutputs(seen, truth[seen].double(), torch.empty(0), len(ids)), trained)
        predicted.append(outputs[:, 0].double())
        models.rates.append(trained.rate)
        models.curves.append(trained.curve)
    assert models is not None
    models.outputs.predicted = torch.stack(predicted)
    return models


def ridge_head(backbone: nn.Module, data: EvalData) -> Callable[[Tensor, Tensor], nn.Linear]:
    """Makes a head that is the ridge regression of the backbone's features, with the penalty that the probe would choose; one of
    random weights where the regression is worse than the mean in training mode.

    In training mode, batch norm has other statistics than the ones the features were computed with. After few steps of pretraining
    these differ much, and a regression with large weights is far off for hundreds of steps."""

    def make(ids: Tensor, y: Tensor) -> nn.Linear:
        x, _ = data.features(backbone, "train")
        rows = torch.full((len(data.source("train")),), -1)
        rows[data.ids("train")] = torch.arange(len(x))
        row = rows[ids]  # -1: cannot be read
        head, _ = fit_ridge_layer(backbone, data, row[row >= 0], y[row >= 0])
        head.requires_grad_(True)
        if _training_error(backbone, head, data, ids, y) > float(y.square().mean()):
            head.reset_parameters()  # standardized values have mean 0
        return head

    return make


def _training_error(backbone: nn.Module, head: nn.Linear, data: EvalData, ids: Tensor, y: Tensor) -> float:
    """Mean squared error of a head for the values `y` (m,) of the training samples `ids` (m,), on features in training mode."""
    model, head = copy.deepcopy(backbone).train(), copy.deepcopy(head).to(data.device)
    errors = [torch.zeros(0)]
    with torch.no_grad():
        for part, x in data.batches("train", ids):
            if len(part) > 1:  # batch norm needs two
                with data.training_autocast():
                    z = model(x)
                errors.append((head(z.float())[:, 0].cpu() - y[torch.searchsorted(ids, part)]).square())
    every = torch.cat(errors)
    return float(every.mean()) if len(every) else 0.0
