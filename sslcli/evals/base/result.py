"""What an evaluator returns, and the arguments that many evaluators share: `baselines` and `seeds`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch

from sslcli.errors import RequestError
from sslcli.evals.classifier.confidence import FittedClassifier
from sslcli.evals.metrics.interval import Interval
from sslcli.runs import Record

Baseline = Literal["raw", "untrained", "given"]
Baselines = bool | Baseline  # which baselines: all, none, or one of them


@dataclass
class Result:
    """The result of an evaluator. `metrics` are named as in the documentation ("top1", "raw.top1", "top1_std").

    `protocol` describes how they were computed, and `details` holds data for plots (a curve, metrics of each class), both in
    plain JSON types. `artefacts` are saved beside them, by file name. `intervals` are 95 % confidence intervals of some
    metrics over test samples (and draws), named as in `top1_ci95`; None is an open end. `answers` are lines for stdout that a
    request asked for instead of a measurement: such a result is not saved. `fitted` is the classifier of the first draw, which the
    run folder keeps.
    """

    metrics: dict[str, float]
    protocol: Record = field(default_factory=dict)
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    details: Record = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    fitted: FittedClassifier | None = None


def has_baseline(baselines: Baselines, kind: Baseline) -> bool:
    """Whether `baselines` includes one kind. Raises RequestError for an unknown value."""
    if not isinstance(baselines, bool) and baselines not in get_args(Baseline):
        raise RequestError(
            f"evaluator.baselines={baselines}: expected true, false, raw, untrained or given",
            "true evaluates all, false none",
        )
    return baselines is True or baselines == kind


class Artefact(Protocol):
    """An image or a file. `caption` describes it in a sentence, for the report and for screen readers."""

    @property
    def caption(self) -> str: ...

    def save(self, path: Path) -> None: ...


def check_seeds(seeds: int) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise RequestError(f"seeds={seeds}: expected an integer of at least 1", "seeds=5")


def mean_and_std(name: str, values: list[float]) -> dict[str, float]:
    """The mean over draws as `name` and, with several draws, the standard deviation (n - 1) as `name_std`."""
    scores = torch.tensor(values, dtype=torch.float64)
    metrics = {name: float(scores.mean())}
    if len(values) > 1:
        metrics[f"{name}_std"] = float(scores.std()) if scores.min() < scores.max() else 0.0  # without rounding
    return metrics
