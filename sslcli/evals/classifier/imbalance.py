"""Accuracy where one class is much more frequent than the others: the mean recall, beside always predicting that class."""

from __future__ import annotations

import torch

from sslcli.console import escape
from sslcli.evals.artefacts.predictions import FILE, Predictions
from sslcli.evals.base.result import Result, mean_and_std

FREQUENT = 1.5  # times the share of classes of equal size, from which on a class is frequent


def add_imbalance(result: Result, classes: tuple[str, ...]) -> str:
    """Where the largest class of the test samples is frequent, add to the metrics of a classification `balanced_top1`, the mean
    over classes of the share of their samples that are right, and `majority.top1`, the share of the largest class. Returns a
    warning where `top1` is not above that share, else ""."""
    predictions = result.artefacts.get(FILE)
    if not isinstance(predictions, Predictions) or "top1" not in result.metrics:
        return ""
    y = predictions.y_true
    present, counts = y.unique(return_counts=True)
    share = float(counts.max()) / len(y)
    if len(present) < 2 or share < FREQUENT / len(present):
        return ""
    right = (predictions.predicted == y).double()  # (draws, n)
    recalls = torch.stack([right[:, y == c].mean(dim=1) for c in present.tolist()])
    result.metrics |= mean_and_std("balanced_top1", recalls.mean(dim=0).tolist()) | {"majority.top1": share}
    largest = int(present[counts.argmax()])
    name = escape(classes[largest]) if largest < len(classes) else str(largest)
    result.protocol.setdefault("baselines", {})["majority"] = {"note": f"always predicts {name}"}
    if result.metrics["top1"] > share:
        return ""
    return f"accuracy {result.metrics['top1']:.3f} is no better than always predicting {name}, which is right for {share:.3f}"
