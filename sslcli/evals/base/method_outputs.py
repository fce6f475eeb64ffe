"""What a run's method says of samples by itself: the clusters of its head, its anomaly score."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.base.features import EvalData, Split


def cluster_probabilities(data: EvalData, split: Split) -> Tensor | None:
    """(n, K) probabilities in the order of the features' rows; None where the run has no clustering head."""
    return _compute(data, split, "assign")


def anomaly_scores(data: EvalData, split: Split) -> Tensor | None:
    """(n,) likewise, by an objective for it."""
    return _compute(data, split, "anomaly_score")


def has_output(data: EvalData, output: str) -> bool:
    """Whether `assign` or `anomaly_score` of the run's method gives something."""
    if data.pretraining is None:
        return False
    method, _ = data.pretraining()
    with torch.no_grad():
        return getattr(method, output)(torch.zeros(2, *data.dataset.shape, device=data.device)) is not None


def _compute(data: EvalData, split: Split, output: str) -> Tensor | None:
    if data.pretraining is None or not has_output(data, output):
        return None
    method, _ = data.pretraining()
    outputs = []
    for _, x in data.batches(split, data.ids(split)):
        with torch.no_grad(), data.autocast():
            outputs.append(getattr(method, output)(x).float().cpu())
    return torch.cat(outputs)
