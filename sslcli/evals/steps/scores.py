"""Anomaly scores of single steps in time: the mean over the windows that a step is in.

Metrics are over steps as they are. Point-adjusted ones, for which a single alarm within an anomalous segment counts as the whole
segment, are not reported: random scores are among the best by them (Kim et al., "Towards a rigorous evaluation of time-series
anomaly detection", AAAI 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.anomaly_protocols import AnomalyResult
from sslcli.evals.metrics.anomaly_metrics import auroc


@dataclass(frozen=True)
class Steps:
    """recording, step (m,) int64, score (m,) float64, and anomalous (m,): 0, 1, or -1 where that is unknown."""

    recording: Tensor
    step: Tensor
    score: Tensor
    anomalous: Tensor


def step_scores(scores: Tensor, spans: Tensor, labels: Any = None) -> Steps:
    """The steps that windows with `scores` (n,) and `spans` (n, 3), see `Source`, cover, by recording and time.

    labels: `Source.step_labels`, or None."""
    parts: list[tuple[Tensor, ...]] = []
    for recording in spans[:, 0].unique().tolist():
        rows = spans[:, 0] == recording
        start, count, score = spans[rows, 1], spans[rows, 2], scores[rows].double()
        length = int((start + count).max())
        change, number = torch.zeros(length + 1, dtype=torch.float64), torch.zeros(length + 1, dtype=torch.float64)
        for place, sign in ((start, 1), (start + count, -1)):
            change.index_add_(0, place, sign * score)
            number.index_add_(0, place, torch.full_like(score, sign))
        covering = number[:-1].cumsum(0).round()
        step = torch.nonzero(covering > 0).flatten()
        mean = change[:-1].cumsum(0)[step] / covering[step]
        known = torch.full_like(step, -1) if labels is None else labels[recording][step]
        parts.append((torch.full_like(step, recording), step, mean, known))
    return Steps(*(torch.cat(column) for column in zip(*parts, strict=True)))


def step_metrics(result: AnomalyResult, data: EvalData) -> dict[str, float]:
    """`steps.auroc` and `steps.ap`, average precision, of the first score, and of each as `knn.steps.auroc` and so on, over test
    steps whose label is known; empty where there are none of both kinds."""
    metrics: dict[str, float] = {}
    for at, name in enumerate(result.scores):
        steps = _of_test(result, name, data)
        if steps is None:
            return {}
        known = steps.anomalous >= 0
        score, anomalous = steps.score[known], steps.anomalous[known] == 1
        if not bool(anomalous.any()) or bool(anomalous.all()):
            return {}
        values = {"steps.auroc": auroc(score, anomalous), "steps.ap": average_precision(score, anomalous)}
        metrics |= (values if at == 0 else {}) | {f"{name}.{key}": value for key, value in values.items()}
    return metrics


def step_artefacts(result: AnomalyResult, score: str, data: EvalData) -> dict[str, Any]:
    """The score of each step of the test split as a CSV file; empty where samples are no windows of recordings."""
    steps = _of_test(result, score, data) if score in result.scores else None
    if steps is None:
        return {}

    names = data.source(data.eval_split).recordings

    def rows() -> Iterator[tuple[Any, ...]]:
        columns = (steps.recording, steps.step, steps.score, steps.anomalous)
        for recording, step, value, known in zip(*(column.tolist() for column in columns), strict=True):
            yield recording if names is None else names[recording], step, f"{value:.6g}", "" if known < 0 else known

    caption = f"the anomaly score ({score}) of each step, the mean over the windows that it is in"
    return {"steps.csv": Csv(("recording", "step", "score", "anomalous"), rows(), caption)}


def _of_test(result: AnomalyResult, name: str, data: EvalData) -> Steps | None:
    """The steps of the split that is evaluated."""
    source = data.source(data.eval_split)
    if source.spans is None or int(source.spans[:, 0].unique(return_counts=True)[1].max()) < 2:
        return None
    rows = [row for row, (part, _) in enumerate(result.samples) if part == data.eval_split]
    ids = torch.tensor([result.samples[row][1] for row in rows])
    return step_scores(result.scores[name][torch.tensor(rows)], source.spans[ids], source.step_labels)


def average_precision(score: Tensor, anomalous: Tensor) -> float:
    """The mean precision at the anomalous steps, by descending score; equal scores are one threshold, as in scikit-learn."""
    ordered, order = score.sort(descending=True, stable=True)
    hits = anomalous[order].double().cumsum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.tensor([True])])  # of equal scores
    precision = hits / torch.arange(1, len(hits) + 1)
    gained = torch.diff(hits[last], prepend=torch.zeros(1, dtype=torch.float64))
    return float((precision[last] * gained).sum() / hits[-1])
