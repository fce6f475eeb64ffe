"""Accuracy where one class is much more frequent than the others: the mean recall, beside always predicting that class."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.console import escape
from sslcli.evals.artefacts.predictions import FILE, Predictions
from sslcli.evals.base.result import Result, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight

FREQUENT = 1.5  # times the share of classes of equal size, from which on a class is frequent


def is_imbalanced(y: Tensor) -> bool:
    """Whether the largest class of samples with the classes y (n,) is frequent."""
    _, counts = y.unique(return_counts=True)
    return len(counts) >= 2 and float(counts.max()) / len(y) >= FREQUENT / len(counts)


def mean_recall(predicted: Tensor, y: Tensor) -> list[float]:
    """The mean over the classes of y (n,) of the share of their samples that are right, of each draw of predictions (draws, n)."""
    right = (predicted == y).double()
    recalls = torch.stack([right[:, y == c].mean(dim=1) for c in y.unique().tolist()])
    values: list[float] = recalls.mean(dim=0).tolist()
    return values


def add_imbalance(result: Result, classes: tuple[str, ...], class_weight: ClassWeight = None) -> str:
    """Where the largest class of the test samples is frequent, add to the metrics of a classification `balanced_top1`, the mean
    over classes of the share of their samples that are right, and `majority.top1`, the share of the largest class. Returns a
    warning where `top1` is not above that share or, with weights of classes, `balanced_top1` not above that of one class, else
    ""."""
    predictions = result.artefacts.get(FILE)
    if not isinstance(predictions, Predictions) or "top1" not in result.metrics:
        return ""
    y = predictions.y_true
    if not is_imbalanced(y):
        return ""
    present, counts = y.unique(return_counts=True)
    share = float(counts.max()) / len(y)
    result.metrics |= mean_and_std("balanced_top1", mean_recall(predictions.predicted, y)) | {"majority.top1": share}
    largest = int(present[counts.argmax()])
    name = escape(classes[largest]) if largest < len(classes) else str(largest)
    result.protocol.setdefault("baselines", {})["majority"] = {"note": f"always predicts {name}"}
    if class_weight is not None:
        balanced = result.metrics["balanced_top1"]
        if balanced > 1 / len(present):
            return ""
        return f"balanced accuracy {balanced:.3f} is no better than always predicting one class, which is {1 / len(present):.3f}"
    if result.metrics["top1"] > share:
        return ""
    return f"accuracy {result.metrics['top1']:.3f} is no better than always predicting {name}, which is right for {share:.3f}"
