"""The networks of a label-efficiency curve that are trained end to end, once for each number of labels and draw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Protocol

from sslcli.config.checks import parse_duration
from sslcli.console import human_time, plural, say
from sslcli.evals.finetuning.predictions import WORDS
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.label_efficiency.points import CurvePoints, Point
from sslcli.runs import Record

Train = Callable[[Amount, int, Recipe, str], Record]  # amount of labels, draw, settings, start -> `protocol` and scores


class Step(Protocol):
    """A number of labels."""

    @property
    def amount(self) -> Amount: ...


def parse_budget(budget: str | float | None) -> float:
    """Seconds of `evaluator.budget`; infinity for None. RequestError."""
    return math.inf if budget is None else parse_duration(budget, "evaluator.budget")


def train_points(
    points: CurvePoints,
    kind: str,
    start: str,
    steps: Sequence[Step],
    draws: int,
    recipe: Recipe,
    train: Train,
    budget: float = math.inf,
) -> tuple[list[list[Record]], list[str]]:
    """For each of `steps`, what `train` returns for each draw of labels, and notes. `start`: scratch or run.

    The first draw is trained for all steps, then the second, ...: after the first one, a draw is begun only if it is likely to end
    before `budget` seconds have passed, so that all steps have equally many draws. The trainings are never shortened: the network
    that pretraining is compared with would be worse than it is."""
    amounts = f"{plural(len(steps), 'number')} of labels x {plural(draws, 'draw')}"
    switch = "evaluator.supervised=false" if start == "scratch" else "evaluator.finetune=false"
    say(f"{kind}: {plural(len(steps) * draws, 'training')} ({WORDS[start]}; {amounts}); {switch} leaves them out")
    rounds: list[list[Record]] = []
    notes: list[str] = []
    begin, longest = time.monotonic(), 0.0
    for draw in range(draws):
        wanted: list[Point] = [
            (
                {"model": kind, "labels": str(step.amount), "draw": draw, "recipe": asdict(recipe)},
                partial(train, step.amount, draw, recipe, start),
            )
            for step in steps
        ]
        now, is_kept = time.monotonic(), points.has(wanted)
        if longest and now + longest - begin > budget and not is_kept:
            trained = f"{draw} of {plural(draws, 'draw')} were trained within evaluator.budget ({human_time(budget)})"
            notes.append(f"{kind}: {trained}; the same command adds draws, and evaluator.budget=null trains all")
            say(notes[-1])
            break
        rounds.append(points.measure(f"{kind}, draw {draw + 1}/{draws}, training", wanted))
        if not is_kept:
            longest = max(longest, time.monotonic() - now)
    return [list(of_step) for of_step in zip(*rounds, strict=True)], notes


def joined_protocol(draws: Sequence[Record]) -> Record:
    """The protocol of the trainings with several draws of labels."""
    protocols = [point["protocol"] for point in draws]
    lr = {key: [value for p in protocols for value in p["lr"][key]] for key in ("used", "edge")}
    return {**protocols[-1], "lr": {**protocols[-1]["lr"], **lr}}
