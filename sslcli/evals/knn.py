"""Weighted k-NN classifier on frozen features, without any training.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, Sec. 3.4: the k nearest
neighbors by cosine similarity, each weighted by exp(similarity / temperature). Of data sets with a value to predict, the
prediction is the weighted mean of the neighbors' values (`regression/neighbors.py`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sslcli.errors import RequestError
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, check_seeds, mean_and_std
from sslcli.evals.classifier.imbalance import is_imbalanced, mean_recall
from sslcli.evals.fit.neighbors import class_scores
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.evals.regression.neighbors import value_knn
from sslcli.runs import Record
from sslcli.runtime.progress import track


def knn(
    backbone: nn.Module,
    data: EvalData,
    *,
    k: int = 20,
    temperature: float = 0.1,
    labels: str | int = "all",
    seeds: int = 1,
    baselines: Baselines = True,
) -> Result:
    """Returns `top1` on the test split, `raw.top1` and `untrained.top1`; with several draws of labels each with `_std`.
    For data sets with a value to predict instead: `rmse`, `mae`, `r2`, also of the modality's baselines.

    Published CIFAR-10 tables use k=200, those of ImageNet k=20, both with temperature 0.1: compare equal settings only.
    Raises RequestError for settings out of range, DataError where labels are missing.
    """
    amount = subsets.parse(labels, data.dataset, any_task=True)
    check_seeds(seeds)
    if not isinstance(k, int) or k < 1:
        raise RequestError(f"evaluator.k={k}: expected an integer of at least 1", "evaluator.k=20")
    if not temperature > 0:
        raise RequestError(
            f"evaluator.temperature={temperature}: expected a value above 0", "evaluator.temperature=0.1"
        )
    data.source("test")  # raises before any feature is computed
    notes: list[str] = []
    draws = seeds
    if amount.kind == "all" and seeds > 1:
        draws = 1
        notes.append(f"seeds={seeds} has no effect: labels=all uses every label")
    if data.dataset.task == "value":
        return value_knn(backbone, data, amount, draws, k, temperature, baselines, notes)

    metrics: dict[str, float] = {}
    protocol: Record = {"labels": str(amount), "seeds": draws, "k": k, "temperature": temperature}
    for kind, features in data.feature_sets(backbone, baselines).items():
        (bank, y), (queries, y_true) = features("train"), features("test")
        subsets.check(y, "train", data.dataset.name)
        labeled = subsets.check(y_true, "test", data.dataset.name, classes=1)
        queries, y_true = F.normalize(queries[labeled], dim=1), y_true[labeled]
        predicted, confidence = [], []
        for index in track(range(draws), "draw of labels"):
            ids = subsets.draw(y, amount, data.seed, index, data.dataset.classes)
            if k > len(ids):
                notes.append(f"k={k} is more than the {len(ids)} labeled training samples: all of them are used")
            scores = class_scores(F.normalize(bank[ids], dim=1), y[ids], queries, k, temperature, data.device)
            predicted.append(scores.argmax(dim=1))
            confidence.append(scores.amax(dim=1) / scores.sum(dim=1))
        right = [float((classes == y_true).double().mean()) for classes in predicted]
        prefix = f"{kind}." if kind else ""
        metrics |= mean_and_std(f"{prefix}top1", right)
        if is_imbalanced(y_true):
            metrics |= mean_and_std(f"{prefix}balanced_top1", mean_recall(torch.stack(predicted), y_true))
        if kind == "":
            protocol["dim"] = bank.shape[1]
            protocol["splits"] = {"train": len(y), "labelled": len(ids), "test": len(labeled)}
            predictions = Predictions(
                data.ids("test")[labeled], y_true, torch.stack(predicted), torch.stack(confidence)
            )
    protocol["notes"] = data.protocol_notes(baselines, notes)
    artefacts = predictions.files(data.source("test"), data.dataset.classes)
    return Result(
        metrics, protocol, artefacts, intervals=accuracy_intervals(metrics, protocol["splits"]["test"], draws)
    )
