"""Fine-tuning of the whole backbone, for classes or for a value, with the same training from random weights as baseline.

The baseline shows what the labels alone achieve, with the same architecture, augmentation, order of samples and number of
steps: the supervised baseline of pretraining.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from sslcli.errors import RequestError
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result, check_seeds, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight, weight_details
from sslcli.evals.classifier.make import finetuned_classifier
from sslcli.evals.finetuning.learning_rate import rate_protocol
from sslcli.evals.finetuning.predictions import TestPredictions, check_augment, measure
from sslcli.evals.finetuning.recipe import Recipe, length_notes
from sslcli.evals.fit.grid_search import Grid, choice_notes
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import fit_classifiers
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.regression.finetune import check_recipe, value_finetune
from sslcli.runs import Record
from sslcli.views.modality import modality


def finetune(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    start: Literal["run", "scratch"] = "run",
    head: Literal["probe", "random"] = "probe",
    epochs: int | None = Recipe.epochs,
    min_steps: int | None = Recipe.min_steps,
    max_steps: int | None = Recipe.max_steps,
    batch_size: int = Recipe.batch_size,
    lr: float | list[float] = Recipe.lr,
    weight_decay: float = Recipe.weight_decay,
    layer_decay: float = Recipe.layer_decay,
    mixup: float = Recipe.mixup,
    cutmix: float = Recipe.cutmix,
    label_smoothing: float = Recipe.label_smoothing,
    augment: str = Recipe.augment,
    class_weight: ClassWeight = Recipe.class_weight,
    baselines: bool = True,
    calibrate: bool = True,
) -> Result:
    """`top1` and with more than five classes `top5` of the last step, `scratch.top1` and `scratch.top5`, and `top1` of the
    modality's baselines; with several seeds each with `_std` (over draws, n - 1); and of the first draw, whose model is kept,
    `ece` after temperature scaling and `ece_uncalibrated` before. For data sets with a value to predict instead: `rmse`, `mae`,
    `r2` (`regression/finetune.py`).

    Each draw has its own labeled samples, order, views, and for `scratch` its own random weights; the test split is
    looked at once, after the last step. `start=scratch` measures the baseline alone. `head`: `probe` begins with the
    logistic regression of the given features (fitted to the draw's samples), so that a random head cannot spoil them in
    the first steps (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    ICLR 2022, arXiv:2202.10054); a start from scratch has nothing to keep and begins with a random head.

    `epochs`, `min_steps`: see `Recipe`. An epoch is cut into batches of near `batch_size`; fewer than 32 labeled samples are one
    batch, each in as many views as make 32 rows, so that batch norm, which learns on, never has a handful of rows. `lr`: a list is
    a grid, of which the best on a fifth of the draw's labeled samples is taken. `class_weight`: balanced weights the classes
    equally, in the loss of all starts, in the first head, in the choice of the rate, and in the modality's baselines.

    `calibrate`: the temperature is fitted to the logits of a fifth of the first draw's labeled samples, by a model trained on
    the other four fifths with the same rate. With a list of rates that model is there; with a single rate it is one training
    more. The kept model is that of all labeled samples, which is slightly less overconfident.
    """
    amount = subsets.parse(labels, data.dataset, any_task=True)
    check_seeds(seeds)
    recipe = Recipe(
        epochs,
        min_steps,
        max_steps,
        batch_size,
        lr,
        weight_decay,
        layer_decay,
        mixup,
        cutmix,
        label_smoothing,
        augment,
        class_weight,
    )
    check_class_weight(class_weight, data.dataset)
    check_augment(data, recipe)
    is_value = data.dataset.task == "value"
    if is_value:
        check_recipe(recipe)
    data_kind = modality(data.dataset.modality)
    if (recipe.mixup or recipe.cutmix) and not data_kind.mixes:
        one, several = data_kind.noun
        raise RequestError(
            f"evaluator.mixup and evaluator.cutmix do not apply to {several}: a mixture of two is not a {one}",
            "evaluator.mixup=0 evaluator.cutmix=0",
        )
    data.source("test")
    starts: dict[str, str] = {"": start}
    if baselines and start == "run":
        starts |= {"scratch": "scratch"} if data.untrained else {}
        starts |= {"given": "given"} if data.backbones.get("given") is not None else {}
    if is_value:
        return value_finetune(
            backbone, data, amount, seeds, recipe, starts, head, baselines, notes(data, baselines, start)
        )
    by_start: dict[str, TestPredictions] = {}
    for name, start_kind in starts.items():
        by_start[name] = measure(backbone, data, amount, range(seeds), recipe, start_kind, head, name == "", calibrate)
    main = by_start[""]
    assert main.first is not None
    kept = finetuned_classifier(main.first, data, calibrate)
    metrics: dict[str, float] = {}
    warnings = length_notes(recipe, main.labeled, main.first.trained.length)
    grid = Grid.of(recipe.rates)
    for kind, scores in by_start.items():
        metrics |= scores.metrics(kind) | (kept.metrics() if kind == "" else {})
        what = f"learning rate{f' {kind}' if kind else ''}"
        warnings += choice_notes(scores.rates, grid, what, "evaluator.lr")
    fitted, y_test = fit_classifiers(data, amount, seeds, baselines, class_weight)
    for name, outputs in fitted.items():
        for metric, values in outputs.scores(y_test, binary=False).items():
            metrics |= mean_and_std(f"{name}.{metric}", values)
    protocol = {
        "labels": str(amount),
        "seeds": seeds,
        "std": "standard deviation over draws (n - 1)",
        "start": start,
        "head": head if start == "run" else "random",
        **main.protocol(recipe),
        "baselines": {k: {"lr": rate_protocol(s.rates, grid)} for k, s in by_start.items() if k}
        | {name: {"note": outputs.note} for name, outputs in fitted.items()},
        "notes": [*notes(data, baselines, start), *warnings],
    }
    artefacts: dict[str, Any] = {
        "confusion.png": Confusion(main.confusion(data), data.dataset.classes),
        **main.predictions().files(data.source("test"), data.dataset.classes),
    }
    details: Record = {"training": {kind or start: scores.curve() for kind, scores in by_start.items()}}
    first = main.first.trained
    if first.weights is not None:
        details["class_weights"] = weight_details(first.weights, first.classes, data.dataset.classes)
    intervals = accuracy_intervals(metrics, len(main.ids), seeds)
    return Result(metrics, protocol, artefacts, details, intervals, fitted=kept)


def notes(data: EvalData, baselines: bool, start: str) -> list[str]:
    main = []
    if data.untrained is None:
        main.append("no baseline from scratch: the evaluated backbone is untrained")
    elif not baselines and start == "run":
        main.append("the baseline from scratch was not trained (evaluator.baselines=false)")
    return [*data.notes, *main]
