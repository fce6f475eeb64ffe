"""Linear probe: multinomial logistic regression on frozen features, with raw inputs and random weights as baselines.

Features are standardized with the statistics of the training split. The regularization strength C is chosen on training
samples. The model is then fitted to all labeled training samples and evaluated once per draw on the test split. No learning
rate has to be tuned, so one protocol serves every method (published probes differ 300-fold in their learning rates).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.errors import RequestError
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, check_seeds, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight, class_weights, weight_details
from sslcli.evals.classifier.confidence import FittedClassifier
from sslcli.evals.classifier.imbalance import is_imbalanced, mean_recall
from sslcli.evals.classifier.make import probe_classifier
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes
from sslcli.evals.fit.linear_probe import C_GRID, TOLERANCE, LinearProbe, Standardizer, c_protocol, choose_c
from sslcli.evals.fit.logistic import Fit, Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import score_classifiers, two_classes
from sslcli.evals.metrics.anomaly_metrics import auroc
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.regression.probe import value_probe
from sslcli.evals.svm.probe import svm_probe
from sslcli.runs import Record
from sslcli.runtime.progress import track


def probe(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    strengths: list[float] | float | None = None,
    baselines: Baselines = True,
    calibrate: bool = True,
    kind: str = "linear",
    class_weight: ClassWeight = None,
) -> Result:
    """Returns `top1`, with more than five classes `top5`, with two classes `auroc`, and the same `top1` and `auroc` as `raw.`,
    `untrained.` and of the modality's baselines; with several seeds each with `_std`; and of the first draw, whose classifier is
    kept, `ece` after temperature scaling and `ece_uncalibrated` before. For data sets with a value to predict instead: `rmse`,
    `mae`, `r2` of ridge regression (`regression/probe.py`).

    `labels` is the number of training labels (`all`, `1%`, `100`, `10/class`), `seeds` the number of draws of labels and
    folds that are averaged; `_std` is the standard deviation over draws (n - 1). The baselines use the same draws.
    `strengths` is scikit-learn's C, or alpha of ridge regression: a value, a list, or None for the grid. `calibrate`: fit the
    temperature, to labeled training samples (`held_out_temperature`); the test split is not used. `kind`: linear, or svm, a
    support-vector machine of which no classifier is kept (`svm/probe.py`). `class_weight`: balanced weights the classes equally, in
    all fits, in the choice of C, and in the baselines; with frequent classes in the test split, the result has `balanced_top1`.
    The probabilities are then those of equally frequent classes, up to the temperature. Raises RequestError for settings out of
    range, DataError where labels are missing.
    """
    amount = subsets.parse(labels, data.dataset, any_task=True)
    check_seeds(seeds)
    given = _given(strengths)
    if kind not in ("linear", "svm"):
        raise RequestError(f"evaluator.kind={kind}: expected linear or svm", "evaluator.kind=linear")
    check_class_weight(class_weight, data.dataset)
    data.source("test")  # raises before any feature is computed
    if kind == "svm":
        if data.dataset.task == "value":
            raise RequestError(
                "evaluator.kind=svm classifies, but the data set has a value to predict", "evaluator.kind=linear"
            )
        return svm_probe(backbone, data, amount, seeds, given, baselines, class_weight)
    if data.dataset.task == "value":
        return value_probe(backbone, data, amount, seeds, given, baselines)
    grid = C_GRID if given is None else Grid.of(given)

    metrics: dict[str, float] = {}
    notes: list[str] = []
    protocol: Record = {}
    artefacts: dict[str, Any] = {}
    details: Record = {}
    draws: dict[str, dict[str, list[float]]] = {}  # of the baselines, by metric: one value per draw
    kept: FittedClassifier | None = None
    for subject, features in data.feature_sets(backbone, baselines).items():
        scores_of_set = _measure(features("train"), features("test"), data, amount, seeds, grid, class_weight)
        notes += choice_notes(
            scores_of_set.choices, grid, f"C of the probe of {subject or 'the backbone'}", "evaluator.strengths"
        )
        solver = scores_of_set.protocol["solver"]
        if not solver["converged"]:
            away = f"gradient {solver['grad_norm']:.2g}, tolerance {TOLERANCE:g}"
            warning = f"the probe of {subject or 'the backbone'} has not converged: {away}"
            warn(warning, "evaluator.strengths=[0.001,0.01,0.1] avoids values of C that converge slowly")
            notes.append(warning)
        names = ("top1", "top5", "auroc", "balanced_top1")
        for name in names if subject == "" else (n for n in names if n != "top5"):
            if name in scores_of_set.scores:
                metrics |= mean_and_std(f"{subject}.{name}" if subject else name, scores_of_set.scores[name])
        if subject == "":
            kept = probe_classifier(*scores_of_set.first, data, calibrate)
            metrics |= kept.metrics()
            protocol = {
                "labels": str(amount),
                "seeds": seeds,
                "std": "standard deviation over draws (n - 1)",
                "class_weight": class_weight,
                "standardised": "by mean and standard deviation of all training features",
                **scores_of_set.protocol,
                "baselines": {},
            }
            artefacts["confusion.png"] = Confusion(scores_of_set.confusion, data.dataset.classes)
            artefacts |= scores_of_set.predictions.files(data.source("test"), data.dataset.classes)
            details = {"draws": scores_of_set.scores}
            if scores_of_set.weights:
                details["class_weights"] = scores_of_set.weights
        else:
            draws[subject] = scores_of_set.scores
            protocol["baselines"][subject] = {k: scores_of_set.protocol[k] for k in ("dim", "strength", "solver")}
    of_field, field_draws, entries = score_classifiers(data, amount, seeds, baselines, class_weight)
    metrics |= of_field
    draws |= field_draws
    protocol["baselines"] |= entries
    if amount.kind == "all" and seeds > 1:
        notes.append(f"labels=all: the {seeds} draws differ only in the folds that choose C")
    protocol["notes"] = data.protocol_notes(baselines, notes)
    details["baselines"] = draws
    intervals = accuracy_intervals(metrics, protocol["splits"]["test"], seeds)
    return Result(metrics, protocol, artefacts, details, intervals, fitted=kept)


def _given(strengths: list[float] | float | None) -> list[float] | None:
    if strengths is None:
        return None
    given = strengths if isinstance(strengths, list) else [strengths]
    if not given or not all(isinstance(s, (int, float)) and 0 < s < float("inf") for s in given):
        raise RequestError(f"evaluator.strengths={strengths}: expected values above 0", "evaluator.strengths=[0.01,1]")
    return [float(s) for s in given]


@dataclass
class _ProbeScores:
    scores: dict[str, list[float]]  # by metric, one per draw
    protocol: Record
    confusion: Tensor  # (K, K) counts over all draws, rows are true classes
    predictions: Predictions
    choices: list[Choice]  # of C, one per draw
    first: tuple[
        LinearProbe, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]
    ]  # of the first draw, see `probe_classifier`
    weights: dict[str, float]  # of the classes, of the first draw


def _measure(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    grid: Grid,
    class_weight: ClassWeight,
) -> _ProbeScores:
    """Fits and tests the probe on one set of features, once per draw of labels."""
    name = data.dataset.name
    subsets.check(train[1], "train", name)
    labeled = subsets.check(test[1], "test", name, classes=1)
    standardize = Standardizer(train[0])
    x_test, y_test = standardize(test[0], labeled), test[1][labeled]
    total = max(len(data.dataset.classes), int(train[1].max()) + 1, int(y_test.max()) + 1)

    binary = two_classes(data.dataset, y_test)
    scores: dict[str, list[float]] = {"top1": [], "top5": [], "auroc": []}
    confusion = torch.zeros(total, total, dtype=torch.int64)
    choices: list[Choice] = []
    fits, predicted, confidence = [], [], []
    whole: dict[float, Fit] = {}  # by C: with all labels the draws share their final fits
    for index in track(range(seeds), "probe, draw of labels"):
        ids = subsets.draw(train[1], amount, data.seed, index, data.dataset.classes)
        classes, y = train[1][ids].unique(return_inverse=True)  # only classes of the training samples can be predicted
        if len(classes) < 2:
            subsets.check(train[1][ids], "train", name)
        x = standardize(train[0], ids).to(data.device)
        groups = data.groups("train")
        weights = class_weights(y, len(classes), class_weight)
        choice = choose_c(x, y, len(classes), grid, data.seed, index, None if groups is None else groups[ids], weights)
        strength = choice.value
        fit = whole.get(strength)
        if fit is None:
            fit = Logistic(x, y, len(classes), weights=weights).fit(strength, TOLERANCE)
            if amount.kind == "all":
                whole[strength] = fit
        logits = fit.logits(x_test)
        ranked = classes[logits.topk(min(5, len(classes)), dim=1).indices]  # (n, up to 5)
        hits = ranked == y_test[:, None]
        scores["top1"].append(float(hits[:, 0].double().mean()))
        if total > 5:
            scores["top5"].append(float(hits.any(dim=1).double().mean()))
        if binary and len(classes) == 2:
            scores["auroc"].append(auroc(logits[:, 1] - logits[:, 0], y_test == classes[1]))
        confusion += torch.bincount(y_test * total + ranked[:, 0], minlength=total * total).view(total, total)
        choices.append(choice)
        fits.append(fit)
        predicted.append(ranked[:, 0])
        if index == 0:
            first = LinearProbe(standardize, fit, classes, choice, class_weight), *train, ids, (logits, hits[:, 0])
            details = weight_details(weights, classes, data.dataset.classes)
        confidence.append(logits.softmax(dim=1).amax(dim=1))
    if is_imbalanced(y_test):
        scores["balanced_top1"] = mean_recall(torch.stack(predicted), y_test)
    protocol = {
        "dim": train[0].shape[1],
        "classes": total,
        "splits": {"train": len(train[1]), "labelled": len(ids), "test": len(labeled)},
        "strength": c_protocol(choices, grid),
        "solver": {
            "name": "full-batch L-BFGS",
            "tolerance": TOLERANCE,
            "grad_norm": max(f.grad_norm for f in fits),
            "iterations": [f.iterations for f in fits],
            "converged": all(f.converged for f in fits),
        },
    }
    predictions = Predictions(data.ids("test")[labeled], y_test, torch.stack(predicted), torch.stack(confidence))
    return _ProbeScores(
        {k: v for k, v in scores.items() if v}, protocol, confusion, predictions, choices, first, details
    )
