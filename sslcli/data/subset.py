"""Sources made of other sources: a subset of one, or the concatenation of two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslcli.console import plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.string_table import StringTable
from sslcli.data.storage import Storage
from sslcli.errors import RequestError


class Subset(Source):
    """Samples `ids` (m,) of `whole`, in that order: sample i of the subset is `ids[i]` of `whole`. `labels` (m,) or None.

    Resident samples are copied on first use, except where the subset is all of `whole`.
    """

    def __init__(self, whole: Source, ids: Tensor, labels: Tensor | None = None):
        assert labels is None or labels.shape == ids.shape, (ids.shape, labels)
        self.whole, self.ids, self.labels = whole, ids, labels
        self.max_bad_fraction = whole.max_bad_fraction
        if whole.bad:
            self.bad = {place: whole.bad[i] for place, i in enumerate(ids.tolist()) if i in whole.bad}
        if whole.names is not None:
            names = list(whole.names)
            self.names = StringTable(names[i] for i in ids.tolist())
        if whole.groups is not None:
            self.groups = whole.groups[ids]
        self.targets = {name: values[ids] for name, values in whole.targets.items()}
        if whole.captions is not None:
            self.captions = whole.captions.select(ids)
        self._x: Storage | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def resident(self) -> Storage | None:
        x = self.whole.resident
        if x is not None and self._x is None:
            everything = len(self) == len(x) and torch.equal(self.ids, torch.arange(len(x)))
            self._x = x if everything else x.select(self.ids)
        return self._x

    def read(self, index: int) -> Any:
        return self.whole.read(int(self.ids[index]))

    def name_of(self, index: int) -> str:
        return self.whole.name_of(int(self.ids[index]))


class Concat(Source):
    """The samples of `first`, then those of `second`: the concatenation of two splits of one data set."""

    def __init__(self, first: Source, second: Source):
        self.parts = first, second
        self.boundary = len(first)
        self.max_bad_fraction = max(p.max_bad_fraction for p in self.parts)
        self.bad = {**first.bad, **{self.boundary + i: reason for i, reason in second.bad.items()}}
        if any(p.labels is not None for p in self.parts):
            none = [torch.full((len(p),), -1) for p in self.parts]
            self.labels = torch.cat(
                [n if p.labels is None else p.labels for p, n in zip(self.parts, none, strict=True)]
            )
        if first.names is not None and second.names is not None:
            self.names = StringTable([*first.names, *second.names])
        if first.groups is not None and second.groups is not None:
            self.groups = torch.cat([first.groups, second.groups])
        self.targets = {
            name: torch.cat([values, second.targets[name]])
            for name, values in first.targets.items()
            if name in second.targets
        }
        if first.captions is not None and second.captions is not None:
            self.captions = first.captions.concat(second.captions)
        self._x: Storage | None = None

    def __len__(self) -> int:
        return self.boundary + len(self.parts[1])

    @property
    def resident(self) -> Storage | None:
        x, y = (p.resident for p in self.parts)
        if x is not None and y is not None and self._x is None:
            self._x = x.concat(y)
            self.parts[0].set_resident(self._x.narrow(0, self.boundary))
            self.parts[1].set_resident(self._x.narrow(self.boundary, len(self)))
        return self._x

    def read(self, index: int) -> Any:
        return self.parts[index >= self.boundary].read(index - self.boundary * (index >= self.boundary))

    def name_of(self, index: int) -> str:
        return self.parts[index >= self.boundary].name_of(index - self.boundary * (index >= self.boundary))


def check_pretrain_on(which: str) -> None:
    """Raises RequestError unless `dataset.pretrain_on` is all or unlabelled."""
    if which not in ("all", "unlabelled"):
        raise RequestError(
            f"dataset.pretrain_on: expected all or unlabelled, got {which}",
            "all: the splits train and unlabelled together; unlabelled: that split alone, if there is one",
        )


def pretrain_source(train: Source, unlabelled: Source | None, which: str, notes: list[str]) -> Source | None:
    """The field `unlabelled` of a Dataset: the source that pretraining reads where there is an unlabeled split. Adds a note."""
    if unlabelled is None:
        return None
    a, b = plural(len(train), "sample"), plural(len(unlabelled), "unlabeled sample")
    if which == "all":
        notes.append(
            f"pretraining reads the {a} of train and the {b} (dataset.pretrain_on=unlabelled: only the latter)"
        )
        return Concat(train, unlabelled)
    notes.append(f"pretraining reads only the {b}, without the {a} of train (dataset.pretrain_on=all: both)")
    return unlabelled


def unlabelled_only(dataset: Dataset) -> Source | None:
    """The unlabeled split alone, also where pretraining reads train and unlabelled together."""
    both = dataset.unlabelled
    return both.parts[1] if isinstance(both, Concat) and both.parts[0] is dataset.train else both
