"""Outputs of a pretrained method for samples: cluster probabilities of its head, its anomaly score."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.base.features import EvalData, Split
from sslcli.views.modality import modality


def cluster_probabilities(data: EvalData, split: Split) -> Tensor | None:
    """Probabilities (n, K) in the order of the rows of the features, or None where the run has no clustering head."""
    return _compute(data, split, "assign")


def anomaly_scores(data: EvalData, split: Split) -> Tensor | None:
    """Anomaly scores (n,) in the order of the rows of the features, or None where the method has no such objective."""
    return _compute(data, split, "anomaly_score")


def has_output(data: EvalData, output: str) -> bool:
    """Whether the run's method implements `output`: `assign` or `anomaly_score`."""
    if data.pretraining is None:
        return False
    method, _ = data.pretraining()
    dataset = data.dataset
    blank = modality(dataset.modality).dummy(dataset.shape, dataset.values, 2).to(data.device)
    with torch.no_grad():
        return getattr(method, output)(blank) is not None


def _compute(data: EvalData, split: Split, output: str) -> Tensor | None:
    if data.pretraining is None or not has_output(data, output):
        return None
    method, _ = data.pretraining()
    outputs = []
    for _, x in data.batches(split, data.ids(split)):
        with torch.no_grad(), data.autocast():
            outputs.append(getattr(method, output)(x).float().cpu())
    return torch.cat(outputs)
