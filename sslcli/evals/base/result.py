"""What an evaluator returns, and the arguments that many evaluators share: `baselines` and `seeds`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from sslcli.errors import RequestError
from sslcli.evals.metrics.interval import Interval

Baselines = bool | Literal["raw", "untrained"]  # which baselines: both, none, or one of them


@dataclass
class Result:
    """What an evaluator found. `numbers` are named as in the documentation ("top1", "raw.top1", "top1_std").

    `protocol` says how they were got, and `details` what a plot needs (a curve, numbers for each class), both in plain JSON
    types. `artefacts` are by file name what is kept beside them. `intervals`: of some numbers, 95 % of what other test samples
    (and draws) would give, as `top1_ci95`; None where an end is open.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any] = field(default_factory=dict)
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)


def has_baseline(baselines: Baselines, kind: Literal["raw", "untrained"]) -> bool:
    """Whether a baseline is asked for; RequestError where `baselines` is none of the words."""
    if not isinstance(baselines, bool) and baselines not in ("raw", "untrained"):
        raise RequestError(
            f"evaluator.baselines={baselines}: there are the baselines `raw` and `untrained`",
            "true measures both, false none",
        )
    return baselines is True or baselines == kind


class Artefact(Protocol):
    """A picture or a file. `caption` says in a sentence what it shows, for the report and for who cannot see it."""

    @property
    def caption(self) -> str: ...

    def save(self, path: Path) -> None: ...


def check_seeds(seeds: int) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise RequestError(f"seeds={seeds}: a number of draws, 1 or more, is needed", "seeds=5")


def mean_and_std(name: str, values: list[float]) -> dict[str, float]:
    """The mean over draws, and with several their standard deviation as `name_std`."""
    scores = torch.tensor(values, dtype=torch.float64)
    metrics = {name: float(scores.mean())}
    if len(values) > 1:
        metrics[f"{name}_std"] = float(scores.std())
    return metrics
