"""Random subsets of the labeled training samples: `labels=all | 1% | 100 | 10/class | FILE.csv`, and folds.

A file is read when the data set is loaded (`label_file.py`); its labels then replace all others.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.label_warnings import HOW_TO_LABEL
from sslcli.errors import DataError, RequestError, listing
from sslcli.rng import derive, order

FORMS = (
    "labels=all, labels=10% (a share), labels=100 (a number), labels=10/class, labels=FILE.csv, or labels=all+FILE.csv"
)


@dataclass(frozen=True)
class Amount:
    """Number of labels: a kind ("all", "share", "count", "per class") and its value; `file` if the labels are from a file."""

    kind: str
    number: float = 0.0
    file: str = ""

    def __str__(self) -> str:
        if self.file:
            return self.file
        shapes = {"all": "all", "share": "{:g}%", "count": "{:g}", "per class": "{:g}/class"}
        return shapes[self.kind].format(self.number)


def check_classes(dataset: Dataset) -> None:
    """RequestError where the data set has values to predict instead of classes."""
    if dataset.task != "classes":
        raise RequestError(
            f"this evaluator predicts classes, and {dataset.name} has a value to predict (dataset.task={dataset.task})",
            "probe, knn and labels predict values; quality, cluster and anomaly need no labels: sslcli eval probe",
        )


def parse(labels: str | int, dataset: Dataset | None = None, any_task: bool = False) -> Amount:
    """Parse `all`, `1%`, `100`, `10/class`, or the label file of `dataset`. Raises RequestError for anything else, and for a data
    set with another task than classes unless `any_task`."""
    if dataset is not None and not any_task:
        check_classes(dataset)
    text = str(labels).strip().lower()
    if text.endswith((".csv", ".tsv", ".txt")):
        read = dataset.details.get("labels", {}).get("file") if dataset is not None else None
        if read != labels:
            raise RequestError(
                f"labels={labels}: this file was not read",
                f"give labels={labels} as a top-level key, not as a key of the evaluator",
            )
        if dataset is not None and dataset.train.labels is not None:
            y = dataset.train.labels
            check_two_classes(y[y >= 0], dataset.classes, read, "training label")
        return Amount("all", file=read)
    if text == "all":
        return Amount("all")
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        number = float(match[1])
        if not 0 < number <= 100:
            raise RequestError(f"labels={labels}: a share is above 0% and at most 100%", f"try {FORMS}")
        return Amount("share", number) if number < 100 else Amount("all")
    if match := re.fullmatch(r"(\d+)(?: ?/ ?class)?", text):
        number = int(match[1])
        if number == 0:
            raise RequestError(f"labels={labels}: at least one label a class is needed", f"try {FORMS}")
        return Amount("per class" if "class" in text else "count", number)
    raise RequestError(f"labels={labels!r} is not understood", f"try {FORMS}")


def check_two_classes(y: Tensor, names: tuple[str, ...], file: str, what: str = "label") -> None:
    """DataError where the labels `y` (m,) of a file are of one class."""
    if len(classes := y.unique()) == 1:
        raise DataError(
            f"{escape(file)} has {plural(len(y), what)}, all of the class {escape(names[int(classes)])}: "
            "at least 2 classes are required",
            "label samples of another class too",
        )


def check(y: Tensor, split: str, name: str, classes: int = 2) -> Tensor:
    """Ids (m,) of the labeled samples in `y` (n,). Raises DataError if they have fewer than `classes` classes."""
    known = torch.nonzero(y >= 0).flatten()
    if len(known) == 0:
        raise DataError(
            f"{name} has no labels in its {split} split",
            f"{HOW_TO_LABEL}; quality, cluster and anomaly need no labels: sslcli eval quality",
        )
    present = int(y[known].unique().numel())
    if present < classes:
        raise DataError(
            f"the {split} split of {name} has {present} class; at least {classes} are required",
            "check it with `sslcli data inspect`",
        )
    return known


def draw(y: Tensor, amount: Amount, seed: int, index: int, names: tuple[str, ...] = ()) -> Tensor:
    """Draw number `index` of a labeled subset: ascending ids (m,). `y` (n,) is -1 where there is no label.

    A pure function of its arguments. Shares and counts are stratified: classes keep their proportions, and each has at
    least one sample. Raises RequestError if more labels are requested than available, DataError if a class is too small.
    """
    known = torch.nonzero(y >= 0).flatten()
    if amount.kind == "all":
        return known
    known = known[order(derive(seed, "labels"), index, len(known))]  # shuffled
    classes, sizes = y[known].unique(return_counts=True)
    if amount.kind == "per class":
        per_class = int(amount.number)
        if per_class * len(classes) > len(known) and per_class > int(sizes.max()):
            raise RequestError(
                f"labels={amount} requires {per_class} labels per class, but the largest class has {int(sizes.max())}",
                f"labels={int(sizes.min())}/class is the most that every class has",
            )
        small = [
            f"{names[c] if c < len(names) else c} ({n})"
            for c, n in zip(classes.tolist(), sizes.tolist(), strict=True)
            if n < per_class
        ]
        if small:
            raise DataError(
                f"labels={amount}: too few training samples in {listing(small, 6)}",
                f"labels={int(sizes.min())}/class is the most that every class has",
            )
        takes = [per_class] * len(classes)
    else:
        total = round(len(known) * amount.number / 100) if amount.kind == "share" else int(amount.number)
        if total > len(known):
            raise RequestError(f"labels={amount}: there are only {len(known)} training labels", "labels=all")
        if total < len(classes):
            raise RequestError(
                f"labels={amount} is {total} of {len(known)} training labels, fewer than the {len(classes)} classes",
                f"labels=1/class, or labels={len(classes)} and more",
            )
        takes = shares(sizes.tolist(), total)
    chosen = [known[y[known] == c][:take] for c, take in zip(classes.tolist(), takes, strict=True)]
    return torch.cat(chosen).sort().values


def shares(sizes: list[int], total: int) -> list[int]:
    """Apportion `total` to classes in proportion to `sizes`: at least one each, at most its size.

    Largest-remainder method; ties go to the first class.
    """
    assert len(sizes) <= total <= sum(sizes), (sizes, total)
    exact = [total * size / sum(sizes) for size in sizes]
    takes = [min(size, max(1, math.floor(e))) for size, e in zip(sizes, exact, strict=True)]
    while sum(takes) != total:
        grow = sum(takes) < total
        # the class furthest below (above) its exact share that may still change
        open_ = [i for i in range(len(sizes)) if (takes[i] < sizes[i] if grow else takes[i] > 1)]
        i = max(open_, key=lambda i: (exact[i] - takes[i]) * (1 if grow else -1))
        takes[i] += 1 if grow else -1
    return takes


def several(groups: Tensor | None) -> Tensor | None:
    """`groups` (n,), or None where all samples are of one: it has to be divided, or nothing could be held out."""
    return None if groups is None or len(groups.unique()) < 2 else groups


def predictable(y: Tensor, groups: Tensor | None = None) -> Tensor:
    """Whether the class of a sample (n,) is known without it: from another sample or, with `groups` (n,), another group of them."""
    parts = torch.arange(len(y)) if groups is None else groups.unique(return_inverse=True)[1]
    pairs = torch.stack([y, parts], dim=1).unique(dim=0)
    return pairs[:, 0].bincount()[y] > 1


def folds(y: Tensor, count: int, seed: int, index: int, groups: Tensor | None = None) -> Tensor:
    """Stratified folds: the fold (n,) in 0..count-1 of each sample. Every class with `count` samples is in every fold.

    With `groups` (n,), samples of one group share a fold, and classes are balanced as far as that allows. See `several`.
    """
    fold = torch.empty_like(y)
    if (groups := several(groups)) is not None:
        return _group_folds(y, count, seed, index, groups)
    shuffled = order(derive(seed, "folds"), index, len(y))
    start = 0
    for c in y.unique().tolist():
        members = shuffled[y[shuffled] == c]
        fold[members] = (torch.arange(len(members)) + start) % count
        start += len(members)  # balances fold sizes if there are many small classes
    return fold


def _group_folds(y: Tensor, count: int, seed: int, index: int, groups: Tensor) -> Tensor:
    """Greedy assignment of groups to folds, largest group first, ties in random order.

    A group goes to the fold that has the fewest samples of its classes; of several, to the smallest fold.
    """
    classes, of_class = y.cpu().unique(return_inverse=True)
    names, of_group = groups.unique(return_inverse=True)
    counts_of_group = torch.zeros(len(names), len(classes), dtype=torch.int64)
    counts_of_group.index_put_((of_group, of_class), torch.tensor(1), accumulate=True)
    shuffled = order(derive(seed, "folds by group"), index, len(names))
    fold_of = torch.empty(len(names), dtype=torch.int64)
    filled = torch.zeros(count, len(classes), dtype=torch.int64)
    for g in shuffled[counts_of_group[shuffled].sum(dim=1).argsort(descending=True, stable=True)].tolist():
        crowded = (filled * counts_of_group[g]).sum(dim=1)
        fold_of[g] = min(range(count), key=lambda f: (int(crowded[f]), int(filled[f].sum()), f))
        filled[fold_of[g]] += counts_of_group[g]
    return fold_of[of_group].to(y.device)
