"""The modality's own baselines, fitted to the labeled training samples of each draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.classifier.imbalance import is_imbalanced, mean_recall
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.anomaly_metrics import auroc
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runtime.progress import track
from sslcli.views.modality import Baseline, modality


@dataclass
class BaselineOutputs:
    """Of one baseline: by draw, probabilities (n, K) of test samples, of the classes (K,) of its training samples."""

    note: str
    outputs: list[Tensor] = field(default_factory=list)
    classes: list[Tensor] = field(default_factory=list)

    def scores(self, y: Tensor, binary: bool) -> dict[str, list[float]]:
        """`top1`, with a frequent class `balanced_top1` and, of two classes, `auroc` of each draw on test samples of the classes
        y (n,)."""
        draws = list(zip(self.outputs, self.classes, strict=True))
        scores = {"top1": [float((classes[p.argmax(dim=1)] == y).double().mean()) for p, classes in draws]}
        if is_imbalanced(y):
            predicted = torch.stack([classes[p.argmax(dim=1)] for p, classes in draws])
            scores["balanced_top1"] = mean_recall(predicted, y)
        if binary and all(len(classes) == 2 for classes in self.classes):
            scores["auroc"] = [auroc(p[:, 1], y == classes[1]) for p, classes in draws]
        return scores


def two_classes(dataset: Dataset, y: Tensor) -> bool:
    """Whether there are two classes, both of them among the test samples y (n,), so that `auroc` is defined."""
    return len(dataset.classes) <= 2 and y.unique().tolist() == [0, 1]


def field_baselines(data: EvalData, baselines: Baselines) -> dict[str, Baseline]:
    """The modality's baselines, where all baselines are wanted; made once, so that they can keep what they compute of the data."""
    if data.field_baselines is None:
        data.field_baselines = modality(data.dataset.modality).baselines(data.dataset)
    return data.field_baselines if baselines is True else {}


def fit_classifiers(
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    baselines: Baselines = True,
    class_weight: ClassWeight = None,
) -> tuple[dict[str, BaselineOutputs], Tensor]:
    """The outputs of each baseline, by name, with the draws of labels and the weights of classes of the probe; and the classes (n,)
    of the test samples."""
    known = field_baselines(data, baselines)
    labeled = len(subsets.draw(data.labels("train"), amount, data.seed, 0, data.dataset.classes)) if known else 0
    known = affordable(known, data, labeled, len(data.source("test")))
    if not known:
        return {}, torch.empty(0, dtype=torch.int64)
    (x, train_ids), (x_test, test_ids) = data.samples("train"), data.samples("test")
    y, y_test = data.labels("train")[train_ids], data.labels("test")[test_ids]
    tested = torch.nonzero(y_test >= 0).flatten()
    x_test, y_test = x_test[tested], y_test[tested]
    results = {name: BaselineOutputs(weighted_note(baseline, class_weight)) for name, baseline in known.items()}
    for index in track(range(seeds), "baselines, draw of labels"):
        ids = subsets.draw(y, amount, data.seed, index, data.dataset.classes)
        classes, targets = y[ids].unique(return_inverse=True)
        for name, baseline in known.items():
            predict = baseline.fit(x[ids], targets, derive(data.seed, "baseline", name, index), class_weight)
            results[name].outputs.append(predict(x_test))
            results[name].classes.append(classes)
    return results, y_test


def weighted_note(baseline: Baseline, class_weight: ClassWeight) -> str:
    """What a baseline is, with its weights of classes."""
    if class_weight is None:
        return baseline.note
    return f"{baseline.note}; {f'{class_weight} class weights' if baseline.weighs_classes else 'without class weights'}"


def score_classifiers(
    data: EvalData, amount: subsets.Amount, seeds: int, baselines: Baselines, class_weight: ClassWeight = None
) -> tuple[dict[str, float], dict[str, dict[str, list[float]]], Record]:
    """Of the baselines of `fit_classifiers`: metrics, the scores of each draw by baseline and metric, and entries of the
    protocol."""
    fitted, y_test = fit_classifiers(data, amount, seeds, baselines, class_weight)
    draws = {name: outputs.scores(y_test, two_classes(data.dataset, y_test)) for name, outputs in fitted.items()}
    metrics: dict[str, float] = {}
    for name, scores in draws.items():
        for metric, values in scores.items():
            metrics |= mean_and_std(f"{name}.{metric}", values)
    return metrics, draws, {name: {"note": outputs.note} for name, outputs in fitted.items()}


def affordable(known: dict[str, Baseline], data: EvalData, labeled: int, tested: int) -> dict[str, Baseline]:
    """The baselines that are fitted to so many labeled samples; the reasons of the others are added to the notes of the data."""
    reasons = {name: baseline.left_out(labeled, tested) for name, baseline in known.items()}
    data.notes += [reason for reason in reasons.values() if reason and reason not in data.notes]
    return {name: baseline for name, baseline in known.items() if not reasons[name]}
