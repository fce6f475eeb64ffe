"""sslcli select RUN ...: rank runs, or the checkpoints of one run, by a label-free metric."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request
from sslcli.config import Config, compose, instantiate
from sslcli.config.overrides import refuse_unused
from sslcli.errors import RequestError, command, listing, nearest
from sslcli.evals.base.candidates import Candidate, find_candidates, list_checkpoints
from sslcli.evals.base.selection import (
    Ranking,
    best_candidate,
    comparability_notes,
    evaluate_candidates,
    missing_metric_notes,
    probe_agreement,
    rank_candidates,
    separation_notes,
)
from sslcli.evals.inputs.label_file import is_file
from sslcli.evals.metrics import ranking
from sslcli.runs import Record, loggers
from sslcli.runs.find import short_name
from sslcli.runs.run import Run
from sslcli.training.configuration import resolve

FEW = 5  # candidates below which a rank correlation says little
FROM_RUN = ("run", "dataset", "train", "method", "backbone", "augmentation", "optimizer", "schedule", "init")


def main(request: Request) -> int:
    options = dict(o.split("=", 1) for o in request.overrides if o.split("=", 1)[0] in ("by", "probe"))
    overrides = [o for o in request.overrides if o.split("=", 1)[0] not in options]
    by = _metric(options.get("by", ranking.DEFAULT))
    label_free = [o for o in overrides if not (o.startswith("labels=") and is_file(o.partition("=")[2]))]
    settings = {"quality": _compose("quality", label_free, request)}  # labels of a file would change its samples
    if _boolean("probe", options.get("probe", "false")):
        settings["probe"] = _compose("probe", [o for o in overrides if not o.startswith("evaluator.")], request)
    candidates = find_candidates(request.positional)
    if candidates[0].checkpoint is not None:
        why = "loggers receive results of runs; those of checkpoints stay in the run folder, in eval/checkpoints"
        refuse_unused(overrides, ("logger",), why, "leave it out")
    candidates = evaluate_candidates(candidates, settings)
    notes = comparability_notes(candidates)
    result = rank_candidates(candidates, by)
    if candidates[result.order[0]].step == 0:
        notes.append(f"step 0, which ranks first, is the untrained network: by {by} training did not help")
    notes += separation_notes(candidates, result)
    print_ranking(candidates, result, notes)
    for candidate in candidates:
        if candidate.save_error is not None:
            raise candidate.save_error
    best = best_candidate(candidates, result)
    if best.checkpoint is not None:
        keys = [f"checkpoint={best.step}", f"out={unused_name(f'encoder-{best.step}')}"]
        console.say(f"next  {command('export', short_name(best.run.path), *keys)}")
    return 0


def best_step(run: Run) -> int:
    """The step of the checkpoint that `sslcli select RUN` ranks first, step 0 aside. RequestError for fewer than two."""
    candidates = evaluate_candidates(list_checkpoints(run), {"quality": _compose("quality", [], Request())})
    return best_candidate(candidates, rank_candidates(candidates, ranking.DEFAULT)).step


def unused_name(name: str) -> str:
    """`name`, or `name-2`, `name-3`, ...: the first that does not exist in the working folder."""
    names = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
    return next(n for n in names if not os.path.lexists(n))


def _metric(name: str) -> str:
    if name not in (known := list(ranking.METRICS)):
        close = nearest(name, known)
        raise RequestError(f"by={name}: unknown metric", f"by={close}" if close else f"one of {listing(known)}")
    return name


def _boolean(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise RequestError(f"{key}={text}: expected true or false", f"{key}=true")
    return text.lower() == "true"


def _compose(name: str, overrides: list[str], request: Request) -> Config:
    """The checked configuration of `sslcli eval NAME`, without baselines: they are the same for all candidates."""
    refuse_unused(overrides, FROM_RUN, "that comes from each run", "leave it out")
    fixed = [f"evaluator={name}", "evaluator.baselines=false"]
    values = resolve(compose.compose("eval", [*fixed, *overrides], request.config_dirs))
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    loggers.Loggers(values["logger"]).check()
    return values


def print_ranking(candidates: list[Candidate], result: Ranking, notes: list[str]) -> None:
    """Prints the ranking, best first, and its agreement with the linear probes."""
    notes += missing_metric_notes(result.rows)
    accuracies = [c.probe.get("numbers", {}).get("top1") for c in candidates]
    agreement = probe_agreement(result.rows, accuracies)
    n = sum(accuracy is not None for accuracy in accuracies)
    if agreement and n < FEW:
        notes.append(f"the correlations are over {n} candidates: with fewer than {FEW} they say little")
    elif not agreement:
        notes.append(
            "no probe to compare with: probe=true evaluates one of each (it reads labels; the ranking does not)"
        )
    if console.flag(console.JSON):
        console.out_json(_finite(_json(candidates, result, accuracies) | {"agreement": agreement, "notes": notes}))
        return
    names = [result.by, *(name for name in result.rows[0] if name != result.by)]
    head = ["", "checkpoint" if candidates[0].checkpoint else "run", *names, *(["probe.top1"] if n else [])]
    body = [
        [
            f"{result.ranks[i][result.by]:g}",
            candidates[i].label,
            *("" if math.isnan(result.rows[i][name]) else f"{result.rows[i][name]:.4g}" for name in names),
            *(["" if accuracies[i] is None else f"{accuracies[i]:.4f}"] if n else []),
        ]
        for i in result.order
    ]
    console.out(*console.table(head, body, numbers=[0, *range(2, len(head))]))
    if agreement:
        lines = [[k, f"{v['spearman']:.3f}", f"{v['kendall']:.3f}", str(v["n"])] for k, v in agreement.items()]
        head = ["agreement with probe.top1", "spearman", "kendall", "n"]
        console.out("", *console.table(head, lines, numbers=[1, 2, 3]))
    for note in notes:
        console.warn(note)


def _json(candidates: list[Candidate], result: Ranking, accuracies: list[float | None]) -> Record:
    rows = [
        {
            "run": str(candidates[i].run.path),
            "checkpoint": candidates[i].checkpoint and str(candidates[i].checkpoint),
            "step": candidates[i].step,
            "numbers": result.rows[i],
            "ranks": result.ranks[i],
            "probe.top1": accuracies[i],
        }
        for i in result.order
    ]
    return {"by": result.by, "candidates": rows}


def _finite(value: object) -> Any:
    """The same with null for nan and inf, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
