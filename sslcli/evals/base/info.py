"""What the YAML of an evaluator states about it: title, main metric, requirements. Imports no torch.

Keys of configs/evaluator/NAME.yaml that are no arguments of the evaluator:

    title       heading in the report
    metric      main metric, or a list of which the first that is present counts; null: none
    needs       labels, tokens (a backbone with tokens), reconstruction (a method that reconstructs),
                timeline (data that are divided in time), next_items (histories of users), captions (a method that reads
                captions), dataset (`dataset=NAME`)
    order       position in the report, ascending
    ranks_runs  whether the main metric ranks the runs of a sweep
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from sslcli.config import Config, registry


@dataclass(frozen=True)
class EvaluatorInfo:
    """The facts of one evaluator; defaults for one whose YAML states none, or that is not installed."""

    name: str
    title: str
    summary: str = ""
    metrics: tuple[str, ...] = ("top1",)
    needs: frozenset[str] = frozenset()
    order: float = math.inf
    ranks_runs: bool = False

    @property
    def label_free(self) -> bool:
        return "labels" not in self.needs


@functools.cache
def evaluator_infos() -> dict[str, EvaluatorInfo]:
    """All evaluators that can be run on a trained encoder, in the order of the report."""
    nodes = {name: registry.describe(path, "evaluator") for name, path in registry.choices("evaluator").items()}
    infos = [_read(name, node) for name, node in nodes.items() if name != "online"]
    return {info.name: info for info in sorted(infos, key=lambda info: (info.order, info.name))}


def evaluator_info(name: str) -> EvaluatorInfo:
    return evaluator_infos().get(name) or EvaluatorInfo(name, _title(name))


def _read(name: str, node: Config) -> EvaluatorInfo:
    metric = node.get("metric", "top1")
    return EvaluatorInfo(
        name,
        title=str(node.get("title") or _title(name)),
        summary=str(node.get("summary") or ""),
        metrics=tuple(metric) if isinstance(metric, list) else () if metric is None else (str(metric),),
        needs=frozenset(node.get("needs") or ()),
        order=float(node.get("order", math.inf)),
        ranks_runs=bool(node.get("ranks_runs")),
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
