"""Label-efficiency curve: accuracy against the number of labels, for the pretrained backbone and for baselines.

All methods use the same draws of labeled samples and the same test split:

- self-supervised: logistic regression on the frozen features of the run (`probe`);
- `untrained`, `raw`: the same on the features of a backbone with random weights, and on the raw inputs;
- `supervised`: the network trained end to end on these labels from random weights, with augmentation (`finetune
  start=scratch`);
- `finetuned`, with `finetune=true`: the network trained end to end on them from the run's weights;
- `typical`, `cover`, `kcenter` or `uncertain`, with `picks`: the probe with as many labels, of samples that this rule of
  `sslcli pick` chooses; and `random_picks`, of uniformly random ones. The other lines have equally many labels of each class, which
  nobody can choose without the labels, so that `random_picks` is what picks are to be compared with. Both have the same seeds.

Labels saved at equal accuracy, for each number n of labels: let a be the mean accuracy over draws of the self-supervised
probe with n labels, and m the number of labels at which a baseline's mean first reaches a, by log-linear interpolation
between measured points (`labels_saved.py`). The baseline needs m / n times as many labels. If it does not reach a with all
N labels, the result is the bound "> N / n"; nothing is extrapolated. `labels_saved` is m / n at ten labels per class against
the baseline that needs the fewest labels; below 1, pretraining does not help. Its 95 % interval covers other draws of
labels, on the same test samples. If the interval contains 1, or with a single draw, the factor is not significant and is
reported in the details only.

Of data sets with a value to predict, the curve is that of the root mean squared error (`regression/label_curve.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sslcli.console import warn
from sslcli.errors import RequestError
from sslcli.evals.active_learning.curve import check_rule, picked_lines
from sslcli.evals.artefacts.label_curve import LabelCurve
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result, check_seeds, mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight
from sslcli.evals.finetuning.predictions import check_augment, measure
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.baselines import field_baselines
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.label_efficiency.points import CurvePoints
from sslcli.evals.label_efficiency.trainings import joined_protocol, parse_budget, train_points
from sslcli.evals.metrics.interval import Interval, accuracy_intervals
from sslcli.evals.metrics.labels_saved import Line, labels_saved
from sslcli.evals.probe import probe
from sslcli.evals.regression.label_curve import value_curve
from sslcli.rng import derive
from sslcli.runs import Record

AMOUNTS = (1, 2, 5, 10, 25, 100, "all")  # per class


def curve(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    amounts: list[int | str] | None = None,
    seeds: int = 5,
    supervised: bool = True,
    supervised_seeds: int | None = None,
    finetune: bool = False,
    picks: str | None = None,
    epochs: int | None = Recipe.epochs,
    min_steps: int | None = Recipe.min_steps,
    max_steps: int | None = Recipe.max_steps,
    augment: str = Recipe.augment,
    budget: str | float | None = "5m",
    class_weight: ClassWeight = None,
) -> Result:
    """Compute accuracy at each number of labels, and the factor of labels saved.

    Metrics: `top1@10`, `raw.top1@10`, `untrained.top1@10`, `supervised.top1@10`, `finetuned.top1@10`, ... for each number of
    labels per class (`top1@all` for all), each with `_std` over draws; and `labels_saved` unless its interval contains 1. If
    `labels_saved_is_bound` is 1, no baseline reaches the accuracy and the factor is a lower bound. For data sets with a value to
    predict: `rmse@100`, `mae@100`, `r2@100`, ..., by total numbers of labels.

    `picks`: a rule of `sslcli pick`; adds the metrics `typical.top1@10`, ..., and `random_picks.top1@10`, ....
    `supervised_seeds`: number of draws for the methods trained end to end (the first of the same draws); null for as many as
    `seeds`. `epochs`, `min_steps`, `max_steps` and `augment` are those of `finetune`, as are all other training settings.
    `budget`: time for each kind of trained network, which limits their number of draws (`train_points`); None for no limit.
    Measured points are kept in the run folder, and reused. `class_weight`: balanced weights the classes equally in all models. It
    matters for `all`: the other numbers of labels are equal in all classes. Where one class of the test samples is frequent, there
    is `balanced_top1@10`, ... beside `top1@10`.
    """
    whole = subsets.parse(labels, data.dataset, any_task=True)
    if whole.kind != "all":
        raise RequestError(
            f"labels={labels}: the curve selects the numbers of labels itself", "evaluator.amounts=[10,all]"
        )
    check_seeds(seeds)
    trained_seeds = seeds if supervised_seeds is None else supervised_seeds
    check_seeds(trained_seeds)
    data.source("test")
    if picks is not None:
        check_rule(picks, data.dataset)
    seconds = parse_budget(budget)
    check_class_weight(class_weight, data.dataset)
    recipe = Recipe(epochs, min_steps, max_steps, augment=augment, class_weight=class_weight)
    trainings = {"supervised": "scratch"} if supervised and data.untrained is not None else {}
    trainings |= {"finetuned": "run"} if finetune else {}
    if supervised or finetune:
        check_augment(data, recipe)
    missing = (
        ["no supervised baseline: the evaluated backbone is untrained"] if supervised and not data.untrained else []
    )
    if data.dataset.task == "value":
        return value_curve(backbone, data, amounts, seeds, recipe, trainings, trained_seeds, missing, seconds)
    y = data.labels("train")
    subsets.check(y, "train", data.dataset.name)
    steps, notes = choose(list(AMOUNTS) if amounts is None else amounts, y)
    if picks is not None and all(step.name == "all" for step in steps):
        raise RequestError(
            f"picks={picks}: evaluator.amounts={amounts} leaves nothing to pick", "evaluator.amounts=[1,5]"
        )

    notes += missing
    if class_weight is not None and all(step.name != "all" for step in steps):
        notes.append(
            f"evaluator.class_weight={class_weight} has no effect: all numbers of labels are equal in all classes"
        )
        warn(notes[-1], "evaluator.amounts=[10,all]")
    lines: dict[str, Line] = {}
    protocols: Record = {}
    drawn: dict[str, int] = {}  # kind -> draws
    balanced: dict[tuple[str, str], list[float]] = {}  # by kind and number of labels: one value per draw, or none
    points = CurvePoints(backbone, data)
    kinds = ("", "given", "untrained", "raw", *field_baselines(data, True))
    with points.reported():
        probes = [
            (
                {"model": "probe", "labels": step.request, "seeds": seeds, "class_weight": class_weight},
                partial(_probe, backbone, data, step, seeds, class_weight),
            )
            for step in steps
        ]
        for step, point in zip(steps, points.measure("probe, number of labels", probes), strict=True):
            for kind in kinds:
                name = f"{kind}.top1" if kind else "top1"
                if name in point["metrics"]:
                    line = lines.setdefault(kind, Line(kind))
                    std = point["metrics"].get(f"{name}_std")
                    line.add(step.name, step.labels, point["metrics"][name], std, point["draws"][kind]["top1"])
                    balanced[kind, step.name] = point["draws"][kind].get("balanced_top1", [])
            protocols = {"probe": point["protocol"]}
            notes += point["notes"]
        for kind, start in trainings.items():
            train = partial(_trained, backbone, data)
            trained, more = train_points(points, kind, start, steps, trained_seeds, recipe, train, seconds)
            notes += more
            drawn[kind] = len(trained[0])
            for step, draws in zip(steps, trained, strict=True):
                top1 = [point["top1"] for point in draws]
                metrics = mean_and_std("top1", top1)
                line = lines.setdefault(kind, Line(kind))
                line.add(step.name, step.labels, metrics["top1"], metrics.get("top1_std"), top1)
                balanced[kind, step.name] = [point["balanced_top1"] for point in draws if "balanced_top1" in point]
                protocols.setdefault(kind, {})[step.name] = joined_protocol(draws)

    picked = _picked(backbone, data, picks, steps, seeds, class_weight) if picks is not None else {}
    metrics = {}
    for kind, line in (lines | picked).items():
        for name, mean, std in zip(line.names, line.mean, line.std, strict=True):
            key = f"{kind}.top1@{name}" if kind else f"top1@{name}"
            metrics |= {key: mean} | ({f"{key}_std": std} if std is not None else {})
            if recalls := balanced.get((kind, name)):
                scores = mean_and_std("", recalls)
                metrics |= {
                    f"{key.replace('top1', 'balanced_top1')}{suffix}": value for suffix, value in scores.items()
                }
    tested = int((data.labels("test") >= 0).sum())
    intervals: dict[str, Interval] = {}
    for kind in lines | picked:
        main_line = {k: v for k, v in metrics.items() if k.startswith(f"{kind}." if kind else "top1@")}
        intervals |= accuracy_intervals(main_line, tested, drawn.get(kind, seeds))
    saving = labels_saved(lines, derive(data.seed, "labels saved"))
    metrics |= saving.metrics
    intervals |= saving.intervals
    protocol = {
        "amounts": {step.name: step.labels for step in steps},
        "seeds": seeds,
        "trained_seeds": min(drawn.values(), default=0),
        "std": "standard deviation over draws (n - 1)",
        "class_weight": class_weight,
        "classes": len(data.dataset.classes),
        "splits": {"train": len(y), "labelled": int((y >= 0).sum()), "test": tested},
        **protocols,
        **({"picks": {"rule": picks, "seeds": seeds}} if picked else {}),
        "baselines": {name: {"note": baseline.note} for name, baseline in field_baselines(data, True).items()},
        "notes": data.protocol_notes(True, notes + saving.notes),
    }
    details = {
        "quoted": saving.quoted,
        "curve": {kind or "self-supervised": line.as_dict() for kind, line in (lines | picked).items()},
        "labels_saved": saving.table,
    }
    image = LabelCurve(list((lines | picked).values()), data.dataset.name, saving.quoted)
    return Result(metrics, protocol, {"curve.png": image}, details, intervals)


def _probe(backbone: nn.Module, data: EvalData, step: Step, seeds: int, class_weight: ClassWeight) -> Record:
    """The accuracy of the probe and its baselines with a number of labels, in all draws."""
    result = probe(backbone, data, labels=step.request, seeds=seeds, calibrate=False, class_weight=class_weight)
    draws = {"": result.details["draws"], **result.details["baselines"]}
    return {
        "metrics": result.metrics,
        "draws": draws,
        "protocol": {k: result.protocol[k] for k in ("standardised", "dim", "strength", "solver")},
        "notes": result.protocol["notes"],
    }


def _trained(backbone: nn.Module, data: EvalData, amount: Amount, draw: int, recipe: Recipe, start: str) -> Record:
    """The accuracy of the network that is trained with one draw of labels."""
    scores = measure(backbone, data, amount, range(draw, draw + 1), recipe, start)
    return {k: v for k, v in scores.metrics().items() if k != "top5"} | {"protocol": scores.protocol(recipe)}


def _picked(
    backbone: nn.Module, data: EvalData, by: str, steps: list[Step], seeds: int, class_weight: ClassWeight
) -> dict[str, Line]:
    """The lines of a rule and of random samples; `all` leaves nothing to pick."""
    amounts = [(step.name, step.labels) for step in steps if step.name != "all"]
    train, test = data.features(backbone, "train"), data.features(backbone, "test")
    return picked_lines(by, train, test, amounts, seeds, data.seed, data.dataset.classes, data.device, class_weight)


@dataclass(frozen=True)
class Step:
    """A point of the curve: the probe's `labels` setting, the suffix of metric names, and the total number of labels."""

    request: str
    name: str
    labels: int

    @property
    def amount(self) -> Amount:
        return Amount("all") if self.name == "all" else Amount("per class", float(self.name))


def choose(amounts: list[int | str], y: torch.Tensor) -> tuple[list[Step], list[str]]:
    """The amounts available in the labels `y` (n,), ascending, and notes on those left out. Raises RequestError if invalid."""
    known = y[y >= 0]
    classes, sizes = known.unique(return_counts=True)
    steps, left_out = [], []
    for amount in amounts:
        if amount == "all":
            continue
        if isinstance(amount, (str, bool)) or amount < 1:
            raise RequestError(
                f"evaluator.amounts={amounts}: {amount} is neither a number of labels a class nor `all`",
                "evaluator.amounts=[1,10,100,all]",
            )
        labels = amount * len(classes)
        if amount > int(sizes.min()) or (labels == len(known) and "all" in amounts):
            left_out.append(str(amount))
        else:
            steps.append(Step(f"{amount}/class", str(amount), labels))
    if "all" in amounts:
        steps.append(Step("all", "all", len(known)))
    if not steps:
        raise RequestError(
            f"evaluator.amounts={amounts}: the smallest class has {int(sizes.min())} labels",
            "evaluator.amounts=[1,all]",
        )
    notes = [f"left out: {', '.join(left_out)} a class (the smallest has {int(sizes.min())})"] if left_out else []
    unique = {step.labels: step for step in reversed(steps)}
    return sorted(unique.values(), key=lambda step: step.labels), notes
