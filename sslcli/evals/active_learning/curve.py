"""Accuracy of the linear probe with samples that a rule picked, by number of labels, beside as many random ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.errors import RequestError, listing, nearest
from sslcli.evals.active_learning.names import RULE_NAMES
from sslcli.evals.active_learning.pool import Pool
from sslcli.evals.active_learning.rules import RULES, random
from sslcli.evals.base.result import mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight, class_weights
from sslcli.evals.fit.linear_probe import C_GRID, TOLERANCE, Standardizer, choose_c
from sslcli.evals.fit.logistic import Logistic
from sslcli.evals.inputs.label_subsets import check_classes
from sslcli.evals.metrics.labels_saved import Line
from sslcli.rng import derive
from sslcli.runtime.progress import track

Labeled = tuple[Tensor, Tensor]  # features (n, d) and labels (n,), -1 for none


def check_rule(picks: str, dataset: Dataset) -> None:
    """RequestError unless `picks` names a rule, and the data set has classes."""
    check_classes(dataset)
    if picks not in RULE_NAMES:
        close = nearest(picks, RULE_NAMES)
        raise RequestError(
            f"picks={picks}: unknown rule",
            f"picks={close}" if close else f"one of {listing(RULE_NAMES)}",
        )


def picked_sets(by: str, pool: Pool, y: Tensor, totals: Sequence[int], seed: int) -> list[Tensor]:
    """The first picks of a rule: for each of the ascending `totals`, that many ids. `pool` has no labels.

    by=uncertain begins with as many random samples as the first total; then their labels, of `y` (n,), are known, and the rule
    picks the samples up to the next total, and so on. The picks of the other rules do not depend on labels."""
    if by != "uncertain":
        ids = torch.tensor([pick.index for pick in RULES[by](pool, totals[-1], seed)], dtype=torch.int64)
        return [ids[:total] for total in totals]
    sets = [torch.tensor([pick.index for pick in random(pool, totals[0], seed)], dtype=torch.int64)]
    for total in totals[1:]:
        known = torch.full_like(y, -1)
        known[sets[-1]] = y[sets[-1]]
        n = total - len(sets[-1])
        one_class = len(y[sets[-1]].unique()) < 2
        so_far = Pool(pool.features, known, pool.classes, pool.expected_classes)
        more = (random if one_class else RULES[by])(so_far, n, seed)
        sets.append(torch.cat([sets[-1], torch.tensor([pick.index for pick in more], dtype=torch.int64)]))
    return sets


class PickedProbe:
    """The linear probe of `sslcli eval probe`, fitted to chosen samples of `train` and measured on `test`."""

    def __init__(
        self,
        train: Labeled,
        test: Labeled,
        seed: int,
        device: torch.device | str = "cpu",
        class_weight: ClassWeight = None,
    ):
        self.x, self.y = train
        self.standardize = Standardizer(self.x)
        tested = torch.nonzero(test[1] >= 0).flatten()
        self.x_test, self.y_test = self.standardize(test[0], tested), test[1][tested]
        self.seed, self.device, self.class_weight = seed, device, class_weight

    def accuracy(self, ids: Tensor, draw: int) -> float:
        """With the samples `ids` (m,). A single class is predicted for all test samples."""
        classes, y = self.y[ids].unique(return_inverse=True)
        if len(classes) == 1:
            return float((self.y_test == classes[0]).double().mean())
        x = self.standardize(self.x, ids).to(self.device)
        weights = class_weights(y, len(classes), self.class_weight)
        choice = choose_c(x, y, len(classes), C_GRID, self.seed, draw, weights=weights)
        logits = Logistic(x, y, len(classes), weights=weights).fit(choice.value, TOLERANCE).logits(self.x_test)
        return float((classes[logits.argmax(dim=1)] == self.y_test).double().mean())


def picked_lines(
    by: str,
    train: Labeled,
    test: Labeled,
    steps: Sequence[tuple[str, int]],
    seeds: int,
    seed: int,
    classes: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
    class_weight: ClassWeight = None,
) -> dict[str, Line]:
    """The lines of a rule and of `random_picks`, by name, over the same draws. `steps`: names and ascending numbers of labels."""
    known = torch.nonzero(train[1] >= 0).flatten()  # only these have a label that one could ask for
    y = train[1][known]
    probe = PickedProbe((train[0][known], y), test, seed, device, class_weight)
    pool = Pool(train[0][known], torch.full_like(y, -1), classes, len(y.unique()))
    lines = {}
    for rule in dict.fromkeys((by, "random")):
        scores: list[list[float]] = [[] for _ in steps]
        for draw in track(range(seeds), f"{rule} picks, draw"):
            sets = picked_sets(rule, pool, y, [labels for _, labels in steps], derive(seed, "picks", draw))
            for place, ids in enumerate(sets):
                scores[place].append(probe.accuracy(ids, draw))
        name = "random_picks" if rule == "random" else rule
        line = lines[name] = Line(name)
        for (amount, labels), draws in zip(steps, scores, strict=True):
            metrics = mean_and_std("top1", draws)
            line.add(amount, labels, metrics["top1"], metrics.get("top1_std"), draws)
    return lines
