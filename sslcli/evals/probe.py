"""Linear probe: multinomial logistic regression on frozen features, beside the same on raw inputs and on random
weights.

Features are standardised by the training split. The penalty's strength is chosen on training samples only, then the
model is fitted to every labelled training sample and shown the test split, once a draw. There is no learning rate to
tune, so one protocol serves every method (published ones differ 300-fold in the rate of their probes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.console import warn
from sslcli.errors import RequestError
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import Baselines, EvalData, Result
from sslcli.evals.fit.grid_search import Choice, Grid, Score, remarks, search
from sslcli.evals.fit.logistic import Fit, Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.interval import of_accuracies
from sslcli.rng import derive
from sslcli.runtime.progress import track

# scikit-learn's C, from strong penalty to weak: tried from 1e-4 to 10 first, and beyond while an edge is best. Below 1e-8
# nothing but the majority class is left; above 1e6 the solver's tolerance is reached before the penalty matters.
STRENGTHS = Grid(tuple(float(f"1e{e}") for e in range(-8, 7)), first=4, last=9)
DEFAULT_STRENGTH = 1e-1  # where there are too few labels to choose by; digits with one a class: flat from 0.03 to 10
FOLDS = 5
CROSS_VALIDATE_UP_TO = 2_000  # labelled samples; above, one fold is held out instead of each in turn
CHOOSE_ON_AT_MOST = 20_000  # C keeps its meaning as n grows, so a stratified part is enough to choose it
TOLERANCE = 3e-6  # of the final fit: its loss is then within 1e-6 of the optimum, relatively
ROUGHLY = 1e-4  # while the strength is chosen


def probe(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    strengths: list[float] | float | None = None,
    baselines: Baselines = True,
) -> Result:
    """`top1`, with more than five classes `top5`, and `raw.top1`, `untrained.top1`; with several seeds each with
    `_std`.

    `labels` says how many training labels are used (`all`, `1%`, `100`, `10/class`), `seeds` how many draws of them
    (and of the folds) are averaged; `_std` is the standard deviation over draws (n - 1). The baselines see the same
    draws.
    """
    amount = subsets.parse(labels, data.dataset)
    check_seeds(seeds)
    grid = _grid(strengths)
    data.source("test")  # fail before any feature is computed

    numbers: dict[str, float] = {}
    notes: list[str] = []
    protocol: dict[str, Any] = {}
    artefacts: dict[str, Any] = {}
    details: dict[str, Any] = {}
    draws: dict[str, dict[str, list[float]]] = {}  # of the baselines: the accuracy of each draw
    for kind, features in data.measured(backbone, baselines).items():
        found = _measure(features("train"), features("test"), data, amount, seeds, grid)
        notes += remarks(found.choices, grid, f"C of the probe of {kind or 'the backbone'}", "evaluator.strengths")
        solver = found.protocol["solver"]
        if not solver["converged"]:
            away = f"gradient {solver['grad_norm']:.2g} for {TOLERANCE:g}"
            doubt = f"the probe of {kind or 'the backbone'} is not at its optimum: {away}"
            warn(doubt, "evaluator.strengths=[0.001,0.01,0.1] leaves out the penalties that are hard to fit")
            notes.append(doubt)
        names = ("top1", "top5") if kind == "" else ("top1",)
        for name in names:
            if name in found.scores:
                numbers |= averaged(f"{kind}.{name}" if kind else name, found.scores[name])
        if kind == "":
            protocol = {
                "labels": str(amount),
                "seeds": seeds,
                "std": "standard deviation over draws (n - 1)",
                "standardised": "by mean and standard deviation of all training features",
                **found.protocol,
                "baselines": {},
            }
            artefacts["confusion.png"] = Confusion(found.confusion, data.dataset.classes)
            artefacts |= found.predictions.files(data.source("test"), data.dataset.classes)
            details = {"draws": found.scores}
        else:
            draws[kind] = found.scores
            protocol["baselines"][kind] = {k: found.protocol[k] for k in ("dim", "strength", "solver")}
    if amount.kind == "all" and seeds > 1:
        notes.append(f"labels=all: the {seeds} draws differ in the folds that choose the strength only")
    protocol["notes"] = data.remarks(baselines, notes)
    details["baselines"] = draws
    intervals = of_accuracies(numbers, protocol["splits"]["test"], seeds)
    return Result(numbers, protocol, artefacts, details, intervals)


def _grid(strengths: list[float] | float | None) -> Grid:
    if strengths is None:
        return STRENGTHS
    given = strengths if isinstance(strengths, list) else [strengths]
    if not given or not all(isinstance(s, (int, float)) and 0 < s < float("inf") for s in given):
        raise RequestError(f"evaluator.strengths={strengths}: give numbers above 0", "evaluator.strengths=[0.01,1]")
    return Grid.of([float(s) for s in given])


def check_seeds(seeds: int) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise RequestError(f"seeds={seeds}: a number of draws, 1 or more, is needed", "seeds=5")


def averaged(name: str, values: list[float]) -> dict[str, float]:
    """The mean over draws, and with several their standard deviation as `name_std`."""
    scores = torch.tensor(values, dtype=torch.float64)
    numbers = {name: float(scores.mean())}
    if len(values) > 1:
        numbers[f"{name}_std"] = float(scores.std())
    return numbers


@dataclass
class _Found:
    scores: dict[str, list[float]]  # by name, one a draw
    protocol: dict[str, Any]
    confusion: Tensor  # (K, K) counts over all draws, rows are the truth
    predictions: Predictions
    choices: list[Choice]  # of C, one a draw


def _measure(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    data: EvalData,
    amount: subsets.Amount,
    seeds: int,
    grid: Grid,
) -> _Found:
    """Every draw on one kind of features."""
    name = data.dataset.name
    subsets.check(train[1], "train", name)
    kept = subsets.check(test[1], "test", name, classes=1)
    standardise = Standardiser(train[0])
    x_test, y_test = standardise(test[0], kept), test[1][kept]
    total = max(len(data.dataset.classes), int(train[1].max()) + 1, int(y_test.max()) + 1)

    scores: dict[str, list[float]] = {"top1": [], "top5": []}
    confusion = torch.zeros(total, total, dtype=torch.int64)
    choices: list[Choice] = []
    fits, said, sure = [], [], []
    whole: dict[float, Fit] = {}  # with all labels the draws share their final fits
    for index in track(range(seeds), "probe, draw of labels"):
        ids = subsets.draw(train[1], amount, data.seed, index, data.dataset.classes)
        classes, y = train[1][ids].unique(return_inverse=True)  # only classes seen in training can be told
        if len(classes) < 2:
            subsets.check(train[1][ids], "train", name)
        x = standardise(train[0], ids).to(data.device)
        groups = data.groups("train")
        choice = choose(x, y, len(classes), grid, data.seed, index, None if groups is None else groups[ids])
        strength = choice.value
        fit = whole.get(strength)
        if fit is None:
            fit = Logistic(x, y, len(classes)).fit(strength, TOLERANCE)
            if amount.kind == "all":
                whole[strength] = fit
        logits = fit.logits(x_test)
        ranked = classes[logits.topk(min(5, len(classes)), dim=1).indices]  # (n, up to 5)
        hits = ranked == y_test[:, None]
        scores["top1"].append(float(hits[:, 0].double().mean()))
        if total > 5:
            scores["top5"].append(float(hits.any(dim=1).double().mean()))
        confusion += torch.bincount(y_test * total + ranked[:, 0], minlength=total * total).view(total, total)
        choices.append(choice)
        fits.append(fit)
        said.append(ranked[:, 0])
        sure.append(logits.softmax(dim=1).amax(dim=1))
    protocol = {
        "dim": train[0].shape[1],
        "classes": total,
        "splits": {"train": len(train[1]), "labelled": len(ids), "test": len(kept)},
        "strength": strengths_of(choices, grid),
        "solver": {
            "name": "full-batch L-BFGS",
            "tolerance": TOLERANCE,
            "grad_norm": max(f.grad_norm for f in fits),
            "iterations": [f.iterations for f in fits],
            "converged": all(f.converged for f in fits),
        },
    }
    predictions = Predictions(data.ids("test")[kept], y_test, torch.stack(said), torch.stack(sure))
    return _Found({k: v for k, v in scores.items() if v}, protocol, confusion, predictions, choices)


def strengths_of(choices: list[Choice], grid: Grid) -> dict[str, Any]:
    """The part of a protocol about C: of each draw its value, and whether it is an edge of all that may be tried."""
    tried = sorted({value for choice in choices for value in choice.tried})
    return {
        "C": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "continued_to": sorted(set(tried) - set(grid.start)),
        "bounds": [grid.values[0], grid.values[-1]],
    }


class Standardiser:
    """(x - mean) / std of the features it was made from; a feature that never varies becomes 0."""

    def __init__(self, x: Tensor):
        self.mean = x.mean(dim=0)
        squares = sum((part - self.mean).square_().sum(dim=0) for part in x.split(1024))
        std = (squares / len(x)).sqrt()  # `x.std(dim=0)` takes eight times as long
        varies = std > 1e-6 * std.max()
        self.scale = torch.where(varies, 1 / torch.where(varies, std, 1.0), 0.0)

    def __call__(self, x: Tensor, ids: Tensor) -> Tensor:
        """Rows `ids` of `x`; one copy is made, however many there are."""
        return x[ids].sub_(self.mean).mul_(self.scale)


def choose(
    x: Tensor, y: Tensor, classes: int, grid: Grid, seed: int, index: int, groups: Tensor | None = None
) -> Choice:
    """The strength that does best on labelled training samples it was not fitted to. `groups` (n,): of the samples, where they
    have any; never divided.

    Best is the highest accuracy; of equal ones the lowest log loss.
    """
    if len(grid.values) == 1:
        return Choice(grid.values[0])
    smallest = int(y.bincount(minlength=classes).min())
    if len(y) < 2 * classes:
        return Choice(DEFAULT_STRENGTH, "default, for want of labels to choose by")
    if len(y) > CHOOSE_ON_AT_MOST:
        some = subsets.draw(y.cpu(), subsets.Amount("count", CHOOSE_ON_AT_MOST), derive(seed, "choose"), index)
        x, y = x[some.to(x.device)], y[some]
        groups = None if groups is None else groups[some]
    count = min(FOLDS, max(2, smallest))
    if groups is not None:
        count = min(count, max(2, len(groups.unique())))
    fold = subsets.folds(y, count, seed, index, groups)
    rounds = range(count) if len(y) <= CROSS_VALIDATE_UP_TO else range(1)
    models = [Logistic(x[fold != f], y[fold != f], classes) for f in rounds]  # each fit starts from the one before
    held = [(x[fold == f].cpu(), y[fold == f]) for f in rounds]
    n_held = sum(len(y_out) for _, y_out in held)
    how = (
        f"accuracy over {count} stratified folds of {len(y)} labelled training samples"
        if len(rounds) > 1
        else f"accuracy on a stratified slice of {n_held} of {len(y)} labelled training samples"
    )

    def score(strength: float) -> Score:
        right = loss = 0.0
        for model, (x_out, y_out) in zip(models, held, strict=True):
            logits = model.fit(strength, ROUGHLY).logits(x_out)
            right += int((logits.argmax(dim=1) == y_out).sum())
            loss += float(F.cross_entropy(logits, y_out, reduction="sum"))
        return right, -loss

    def enough(scores: list[Score]) -> bool:
        """Weak penalties cost most: stop when two in a row were worse by both measures."""
        best = max(scores)
        return len(scores) > 2 and all(s[0] < best[0] and s[1] < best[1] for s in scores[-2:])

    return search(grid, score, how, enough)
