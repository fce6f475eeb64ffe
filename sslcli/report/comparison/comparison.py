"""Comparison of runs: metrics, configuration, predictions on the same test samples, CKA of the encoders, training curves.

The first run is the reference for all others. Lists are in the order of the runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.config import Config
from sslcli.errors import listing
from sslcli.evals.pairing.predictions import same_data
from sslcli.report.comparison.encoders import compare_encoders
from sslcli.report.comparison.plot import Curves
from sslcli.report.comparison.predictions import compare_predictions
from sslcli.runs import Record
from sslcli.runs.find import short_name
from sslcli.runs.identity import identity_config
from sslcli.runs.listing import length_warning, training_length
from sslcli.runs.run import Run

DESCRIPTIONS = (".summary", ".source", ".family")  # keys of a recipe that do not change what is computed


@dataclass
class Comparison:
    """The result of a comparison, in plain JSON types."""

    runs: list[Record]
    numbers: dict[str, list[float | None]] = field(default_factory=dict)  # metric -> its value in each run
    earlier: dict[str, list[int | None]] = field(
        default_factory=dict
    )  # metric -> step of a value of other weights, by run
    items: list[Record] = field(default_factory=list)  # one entry for each evaluation and run
    config: dict[str, list[Any]] = field(default_factory=dict)  # dotted key -> its value in each run
    cka: list[Record] = field(default_factory=list)
    picture: str | None = None  # path of the plot
    notes: list[str] = field(default_factory=list)


def compare(runs: list[Run], seed: int, plot: Path, device: Config | None) -> Comparison:
    """Compares two or more runs.

    - `seed`: of the bootstrap intervals.
    - `plot`: PNG file for the training curves.
    - `device`: the resolved configuration of an evaluation, for CKA; None leaves CKA out.
    """
    names = [chr(ord("A") + i) if i < 26 else f"R{i + 1}" for i in range(len(runs))]
    comparison = Comparison([describe_run(name, run) for name, run in zip(names, runs, strict=True)])
    comparison.numbers = collect_metrics(runs)
    comparison.earlier = earlier_steps(runs)
    for name, run in zip(names, runs, strict=True):
        if outdated := [f"{e.name} (step {e.step})" for e in run.results.values() if e.outdated]:
            comparison.notes.append(f"{listing(outdated)} of {name}: measured with other weights than {name} has now")
    comparison.config = config_differences(runs)
    if warning := length_warning([run["length"] for run in comparison.runs]):
        comparison.notes.append(warning)
    comparison.notes += different_data(names, runs)
    comparison.items, notes = compare_predictions(names, runs, seed)
    comparison.notes += notes
    if device is not None:
        comparison.cka, notes = compare_encoders(names, runs, device)
        comparison.notes += notes
    plot_curves(runs, plot, comparison)
    return comparison


def different_data(names: list[str], runs: list[Run]) -> list[str]:
    """Evaluations that runs and the first one have of other data: the differences of their metrics say nothing."""
    first, notes = runs[0].results, []
    for evaluation, result in first.items():
        others = [
            name
            for name, run in zip(names[1:], runs[1:], strict=True)
            if evaluation in run.results and not same_data(result, run.results[evaluation])
        ]
        if others:
            notes.append(
                f"{evaluation} of {listing(others)}: measured on other data than {names[0]}: metrics do not compare"
            )
    return notes


def describe_run(name: str, run: Run) -> Record:
    status = run.status
    return {
        "name": name,
        "run": str(run.path),
        "short": short_name(run.path),
        "status": status.get("status"),
        "step": status.get("step"),
        "seconds": status.get("seconds"),
        "length": training_length(status.get("step"), run.config, run.metrics),
    }


def collect_metrics(runs: list[Run]) -> dict[str, list[float | None]]:
    """Each metric of an evaluation with its value in each run; None where it is missing or not finite."""
    rows = [{f"{n}.{k}": v for n, e in run.evals.items() for k, v in e.get("numbers", {}).items()} for run in runs]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [finite(row.get(name)) for row in rows] for name in names}


def earlier_steps(runs: list[Run]) -> dict[str, list[int | None]]:
    """The metrics that were measured with other weights than a run has now, with the step of each run for which this is so."""
    rows = [
        {f"{n}.{k}": e.step or 0 for n, e in run.results.items() if e.outdated for k in e.record.get("numbers", {})}
        for run in runs
    ]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def config_differences(runs: list[Run]) -> dict[str, list[Any]]:
    """The keys that determine what a run computes and that differ between runs; None where a run lacks a key."""
    flat = [identity_config(run.config) for run in runs]
    keys = dict.fromkeys(key for cfg in flat for key in cfg if not key.endswith(DESCRIPTIONS))
    rows = {key: [cfg.get(key) for cfg in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def plot_curves(runs: list[Run], path: Path, comparison: Comparison) -> None:
    names = [f"{run['name']}  {run['short']}" for run in comparison.runs]
    nodes = [run.config.get("method") for run in runs]
    methods = {str(node.get("_target_")) for node in nodes if isinstance(node, dict)}
    curves = Curves(names, [run.metrics for run in runs], same_method=len(methods) == 1)
    if not curves.panels:
        comparison.notes.append("no curve to plot: no run has a line in metrics.jsonl")
        return
    curves.save(path)
    comparison.picture = str(path)
