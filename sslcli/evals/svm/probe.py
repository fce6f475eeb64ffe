"""`eval probe evaluator.kind=svm`: the accuracy of a support-vector machine on frozen features, with the baselines of the probe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.classifier.imbalance import is_imbalanced, mean_recall
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import score_classifiers, two_classes
from sslcli.evals.metrics.anomaly_metrics import auroc
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.svm.fit import C_VALUES, ITERATIONS, MOST, SVM, fit_svm
from sslcli.runs import Record
from sslcli.runtime.progress import track

NOT_KEPT = "no classifier is kept for `sslcli predict`: it is no linear layer (evaluator.kind=linear keeps one)"


def svm_probe(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    strengths: list[float] | None,
    baselines: Baselines,
    class_weight: ClassWeight = None,
) -> Result:
    """`top1` and, of two classes, `auroc`; with the same baselines, and draws of labels, as the linear probe.

    `strengths`: values of C, or None for those of TS2Vec."""
    values = C_VALUES if strengths is None else tuple(sorted(strengths))
    metrics: dict[str, float] = {}
    draws: dict[str, dict[str, list[float]]] = {}
    protocol: Record = {}
    artefacts: dict[str, Any] = {}
    notes = [NOT_KEPT]
    warn(NOT_KEPT)
    for kind, features in data.feature_sets(backbone, baselines).items():
        train, test = features("train"), features("test")
        fits, scores, predictions = _measure(train, test, data, amount, seeds, values, class_weight)
        draws[kind] = scores
        strength = {"C": [_plain(fit.choice.value) for fit in fits], "chosen_by": fits[-1].choice.how}
        for name, column in scores.items():
            metrics |= mean_and_std(f"{kind}.{name}" if kind else name, column)
        if not all(fit.converged for fit in fits):
            early = (
                f"the support-vector machine of {kind or 'the backbone'} has not converged in {ITERATIONS:,} iterations"
            )
            warn(early, "evaluator.strengths=[0.1,1,10] avoids large values of C, which take long")
            notes.append(early)
        if kind:
            protocol["baselines"][kind] = {"dim": train[0].shape[1], "strength": strength}
            continue
        if fits[0].labeled == MOST:
            notes.append(f"fitted to a stratified subset of {MOST:,} labeled samples")
        artefacts = predictions.files(data.source("test"), data.dataset.classes)
        artefacts["confusion.png"] = Confusion(_confusion(predictions, data), data.dataset.classes)
        protocol = {
            "labels": str(amount),
            "seeds": seeds,
            "std": "standard deviation over draws (n - 1)",
            "class_weight": class_weight,
            "standardised": "no",
            "dim": train[0].shape[1],
            "splits": {"train": len(train[0]), "labelled": fits[0].labeled, "test": len(predictions.y_true)},
            "strength": {**strength, "grid": [_plain(value) for value in values]},
            "solver": {"name": "support-vector machine, RBF kernel, gamma 1 / (d * variance), one against one"},
            "baselines": {},
        }
    of_field, field_draws, entries = score_classifiers(data, amount, seeds, baselines, class_weight)
    metrics |= of_field
    draws |= field_draws
    protocol["baselines"] |= entries
    protocol["notes"] = data.protocol_notes(baselines, notes)
    details = {"draws": draws.pop(""), "baselines": draws}
    return Result(metrics, protocol, artefacts, details, accuracy_intervals(metrics, protocol["splits"]["test"], seeds))


def _measure(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    values: tuple[float, ...],
    class_weight: ClassWeight,
) -> tuple[list[SVM], dict[str, list[float]], Predictions]:
    """The machine, scores and predictions of each draw of labels."""
    (x, y), name = train, data.dataset.name
    subsets.check(y, "train", name)
    tested = subsets.check(test[1], "test", name, classes=1)
    x_test, y_test = test[0][tested], test[1][tested]
    binary = two_classes(data.dataset, y_test)
    groups = data.groups("train")
    fits: list[SVM] = []
    scores: dict[str, list[float]] = {"top1": [], "auroc": []}
    predicted, confidence = [], []
    for index in track(range(seeds), "support-vector machine, draw of labels"):
        ids = subsets.draw(y, amount, data.seed, index, data.dataset.classes)
        subsets.check(y[ids], "train", name)
        of_rows = None if groups is None else groups[ids]
        fits.append(fit_svm(x[ids], y[ids], values, data.seed, index, of_rows, class_weight))
        classes, margins = fits[-1].predict(x_test)
        scores["top1"].append(float((classes == y_test).double().mean()))
        if binary:
            scores["auroc"].append(auroc(margins[:, 1], y_test == 1))
        predicted.append(classes)
        confidence.append(margins.softmax(dim=1).amax(dim=1))
    if is_imbalanced(y_test):
        scores["balanced_top1"] = mean_recall(torch.stack(predicted), y_test)
    predictions = Predictions(data.ids("test")[tested], y_test, torch.stack(predicted), torch.stack(confidence))
    return fits, {k: v for k, v in scores.items() if v}, predictions


def _confusion(predictions: Predictions, data: EvalData) -> Tensor:
    """(K, K) counts over all draws, rows are true classes."""
    y = predictions.y_true.expand_as(predictions.predicted).flatten()
    total = max(len(data.dataset.classes), int(y.max()) + 1, int(predictions.predicted.max()) + 1)
    counts = torch.bincount(y * total + predictions.predicted.flatten(), minlength=total * total)
    return counts.view(total, total)


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else "infinity"
