"""Label-efficiency curve of the task `value`: error of the predictions against the number of labels.

The models are those of the probe (`probe.py`): frozen features, raw inputs, a backbone with random weights, and the modality's own
baselines; and networks trained end to end (`finetune.py`). All are fitted to the same draws of labeled samples. Labels saved are
defined as for classes (`sslcli/evals/labels.py`), at equal root mean squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sslcli.errors import RequestError
from sslcli.evals.artefacts.label_curve import LabelCurve
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.evals.finetuning.predictions import training_protocol
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.label_efficiency.points import CurvePoints
from sslcli.evals.label_efficiency.trainings import joined_protocol, train_points
from sslcli.evals.metrics.interval import SUFFIX, Interval
from sslcli.evals.metrics.labels_saved import RMSE, Line, labels_saved
from sslcli.evals.regression.finetune import measure_values
from sslcli.evals.regression.probe import value_probe
from sslcli.evals.regression.values import ValueOutputs, ValueScores, all_values, known_values
from sslcli.rng import derive
from sslcli.runs import Record

AMOUNTS = (10, 25, 50, 100, 250, 1000, "all")


@dataclass(frozen=True)
class Count:
    """A point of the curve: the suffix of metric names, and the number of labels."""

    name: str
    labels: int

    @property
    def amount(self) -> Amount:
        return Amount("all") if self.name == "all" else Amount("count", self.labels)


def value_curve(
    backbone: nn.Module,
    data: EvalData,
    amounts: list[int | str] | None,
    seeds: int,
    recipe: Recipe,
    trainings: dict[str, str],
    trained_seeds: int,
    missing: list[str],
    seconds: float,
) -> Result:
    """Compute the errors at each number of labels, and the factor of labels saved.

    Metrics: `rmse@10`, `mae@10`, `r2@10`, `raw.rmse@10`, ... for each number of labels (`rmse@all` for all), each with `_std` over
    draws; and `labels_saved` unless its interval contains 1. `trainings`: kind -> start (scratch or run) of the networks that are
    trained end to end by `recipe`, on the first `trained_seeds` draws, or as many as fit into `seconds`. `missing`: notes on those
    that cannot be.
    """
    values = all_values(data, "train")
    known = len(known_values(values, "train", data.dataset.name))
    steps, notes = choose_counts(list(AMOUNTS) if amounts is None else amounts, known)
    notes += missing
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    curves: dict[str, Record] = {}
    lines: dict[str, Line] = {}
    protocols: Record = {}
    drawn: list[int] = []
    points = CurvePoints(backbone, data)
    with points.reported():
        probes = [
            (
                {"model": "probe", "labels": str(step.amount), "seeds": seeds},
                partial(_probe, backbone, data, step, seeds),
            )
            for step in steps
        ]
        for step, point in zip(steps, points.measure("probe, number of labels", probes), strict=True):
            metrics |= {_at(name, step): value for name, value in point["metrics"].items()}
            intervals |= {_at(name, step): tuple(interval) for name, interval in point["intervals"].items()}
            for kind, draws in point["draws"].items():
                _add_point(lines, curves, kind, step, point["metrics"], draws)
            notes += point["notes"]
            of_probe = point["protocol"]
        for kind, start in trainings.items():
            train = partial(_trained, backbone, data)
            trained, more = train_points(points, kind, start, steps, trained_seeds, recipe, train, seconds)
            notes += more
            drawn.append(len(trained[0]))
            for step, models in zip(steps, trained, strict=True):
                scores = ValueScores(data.seed)
                scores.add(kind, _outputs(data, models))
                metrics |= {_at(name, step): value for name, value in scores.metrics.items()}
                intervals |= {_at(name, step): interval for name, interval in scores.intervals.items()}
                _add_point(lines, curves, kind, step, scores.metrics, scores.draws[kind])
                protocols.setdefault(kind, {})[step.name] = joined_protocol(models)
    saving = labels_saved(lines, derive(data.seed, "labels saved"), RMSE)
    protocol = {
        "task": "value",
        "amounts": {step.name: step.labels for step in steps},
        "seeds": seeds,
        "std": "standard deviation over draws (n - 1)",
        "splits": {"train": len(values), "labelled": known, "test": of_probe["splits"]["test"]},
        "probe": {k: v for k, v in of_probe.items() if k != "splits"},
        "trained_seeds": min(drawn, default=0),
        **protocols,
        "notes": data.protocol_notes(True, notes + saving.notes),
    }
    details = {
        "quoted": saving.quoted,
        "curve": {kind or "self-supervised": line.as_dict() for kind, line in lines.items()},
        "draws": curves,
        "labels_saved": saving.table,
    }
    image = LabelCurve(list(lines.values()), data.dataset.name, saving.quoted, RMSE)
    return Result(metrics | saving.metrics, protocol, {"curve.png": image}, details, intervals | saving.intervals)


def _probe(backbone: nn.Module, data: EvalData, step: Count, seeds: int) -> Record:
    """The errors of the probe and its baselines with a number of labels, in all draws."""
    result = value_probe(backbone, data, step.amount, seeds, None, True)
    keys = ("standardised", "dim", "strength", "solver", "baselines", "splits")
    return {
        "metrics": result.metrics,
        "intervals": result.intervals,
        "draws": {"": result.details["draws"], **result.details["baselines"]},
        "protocol": {k: result.protocol[k] for k in keys},
        "notes": result.protocol["notes"],
    }


def _trained(backbone: nn.Module, data: EvalData, amount: Amount, draw: int, recipe: Recipe, start: str) -> Record:
    """What the network that is trained with one draw of labels predicts for the test samples."""
    models = measure_values(backbone, data, amount, range(draw, draw + 1), recipe, start)
    outputs = models.outputs
    return {
        "ids": outputs.ids.tolist(),
        "predicted": outputs.predicted[0].tolist(),
        "protocol": training_protocol(recipe, models.rates, models.first.length),
    }


def _outputs(data: EvalData, draws: list[Record]) -> ValueOutputs:
    """The predictions of several draws of labels."""
    ids = torch.tensor(draws[0]["ids"])
    predicted = torch.tensor([point["predicted"] for point in draws], dtype=torch.float64)
    return ValueOutputs(ids, all_values(data, "test")[ids].double(), predicted)


def _add_point(
    lines: dict[str, Line],
    curves: dict[str, Record],
    kind: str,
    step: Count,
    metrics: Mapping[str, float],
    draws: Mapping[str, list[float]],
) -> None:
    """Adds a number of labels to the line of a kind of model, and its errors in each draw to `curves`."""
    name = f"{kind}.rmse" if kind else "rmse"
    line = lines.setdefault(kind, Line(kind))
    line.add(step.name, step.labels, metrics[name], metrics.get(f"{name}_std"), draws["rmse"])
    by_metric = curves.setdefault(kind or "self-supervised", {metric: [] for metric in draws})
    for metric, values in draws.items():
        by_metric[metric].append(values)


def _at(name: str, step: Count) -> str:
    """`raw.rmse_std` -> `raw.rmse@10_std`."""
    for suffix in ("_std", SUFFIX):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)}@{step.name}{suffix}"
    return f"{name}@{step.name}"


def choose_counts(amounts: list[int | str], known: int) -> tuple[list[Count], list[str]]:
    """The numbers of labels that `known` values allow, ascending, and notes on those left out. RequestError if invalid."""
    counts, left_out = [], []
    for amount in amounts:
        if amount == "all":
            continue
        if isinstance(amount, (str, bool)) or amount < 2:
            raise RequestError(
                f"evaluator.amounts={amounts}: {amount} is neither a number of labels, at least 2, nor `all`",
                "evaluator.amounts=[10,100,all]",
            )
        if amount > known or (amount == known and "all" in amounts):
            left_out.append(str(amount))
        else:
            counts.append(Count(str(amount), amount))
    if "all" in amounts:
        counts.append(Count("all", known))
    if not counts:
        raise RequestError(
            f"evaluator.amounts={amounts}: {known} training samples have a value", "evaluator.amounts=[all]"
        )
    notes = [f"left out: {', '.join(left_out)} labels ({known} training samples have a value)"] if left_out else []
    return sorted({count.labels: count for count in counts}.values(), key=lambda count: count.labels), notes
