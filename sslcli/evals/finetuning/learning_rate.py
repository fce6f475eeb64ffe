"""Choose a learning rate on labeled training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evals.fit.grid_search import Choice, Grid, Score, search
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.runs import Record

HELD_OUT = 5  # one fold of so many chooses the rate


def held_out(y: Tensor, seed: int, groups: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """Places in `y` (m,) of four of five stratified folds, and of the fifth; None with fewer than two samples per class on average.

    `groups` (m,) are never divided. No class is in the fifth fold alone: what the others would lack of it moves to them."""
    if len(y) < 2 * len(y.unique()):
        return None
    groups = subsets.several(groups)
    outside = subsets.folds(y, HELD_OUT, seed, 0, groups) == 0
    lacking = ~torch.isin(y, y[~outside])
    outside &= ~(lacking if groups is None else torch.isin(groups, groups[lacking]))
    return (torch.nonzero(~outside).flatten(), torch.nonzero(outside).flatten()) if outside.any() else None


def best_rate(
    grid: Grid,
    default: float,
    y: Tensor,
    seed: int,
    fit: Callable[[Tensor, float], Any],
    score: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    groups: Tensor | None = None,
    judge: Callable[[Tensor, Tensor], Score] | None = None,
) -> Choice:
    """The rate that does best on one of five stratified folds of the labeled training samples `y` (m,), fitted to the others;
    `default` where nothing can be held out. `groups` (m,) are never divided. `fit(places, rate)` gives a model,
    `score(model, places)` its outputs and the
    truth, and `judge` compares these: by default by the highest accuracy, of equal ones the lowest loss.
    """
    parts = held_out(y, seed, groups)
    if len(grid.values) == 1 or parts is None:
        return Choice(default, "given" if len(grid.values) == 1 else "default: too few labels to choose from")
    inside, outside = parts

    def judged(rate: float) -> Score:
        return (judge or class_score)(*score(fit(inside, rate), outside))

    how = f"on a fold of {HELD_OUT} of the labelled training samples"
    return search(grid, judged, how, enough=lambda scores: False)


def class_score(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Score:
    """The number of samples whose class is right, and the negative loss. logits (n, k), truth (n,). With `weights` (k,) of the
    classes, both are weighted."""
    right = logits.argmax(dim=1) == truth
    if weights is None:
        return int(right.sum()), -float(F.cross_entropy(logits, truth))
    return float(weights[truth[right]].sum()), -float(F.cross_entropy(logits, truth, weights.to(logits)))


def value_score(predicted: Tensor, truth: Tensor) -> Score:
    """The negative squared error of values (n,)."""
    return (-float((predicted.double() - truth.double()).square().sum()),)


def rate_protocol(choices: list[Choice], grid: Grid) -> Record:
    """The part of a protocol about learning rates, of several draws."""
    tried = {value for choice in choices for value in choice.tried}
    return {
        "used": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "continued_to": sorted(tried - set(grid.start)),
    }
