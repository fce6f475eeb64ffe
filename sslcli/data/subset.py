"""Sources made of sources: some samples of one, or two in a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslcli.console import plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.string_table import StringTable
from sslcli.errors import RequestError


class Subset(Source):
    """Samples `ids` (m,) of `whole`, in that order; sample i here is `ids[i]` there. `labels` (m,) are theirs, or None.

    Resident samples are copied when they are first asked for; the whole itself serves where all are taken in order.
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
        self._x: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def resident(self) -> Tensor | None:
        x = self.whole.resident
        if x is not None and self._x is None:
            everything = len(self) == len(x) and torch.equal(self.ids, torch.arange(len(x)))
            self._x = x if everything else x[self.ids]
        return self._x

    def read(self, index: int) -> Any:
        return self.whole.read(int(self.ids[index]))

    def name_of(self, index: int) -> str:
        return self.whole.name_of(int(self.ids[index]))


class Concat(Source):
    """The samples of `first`, then those of `second`: two splits of one data set."""

    def __init__(self, first: Source, second: Source):
        self.parts = first, second
        self.cut = len(first)
        self.max_bad_fraction = max(p.max_bad_fraction for p in self.parts)
        self.bad = {**first.bad, **{self.cut + i: reason for i, reason in second.bad.items()}}
        if any(p.labels is not None for p in self.parts):
            none = [torch.full((len(p),), -1) for p in self.parts]
            self.labels = torch.cat(
                [n if p.labels is None else p.labels for p, n in zip(self.parts, none, strict=True)]
            )
        if first.names is not None and second.names is not None:
            self.names = StringTable([*first.names, *second.names])
        if first.groups is not None and second.groups is not None:
            self.groups = torch.cat([first.groups, second.groups])
        self._x: Tensor | None = None

    def __len__(self) -> int:
        return self.cut + len(self.parts[1])

    @property
    def resident(self) -> Tensor | None:
        x, y = (p.resident for p in self.parts)
        if x is not None and y is not None and self._x is None:
            self._x = torch.cat([x, y])
            for part, own in zip(self.parts, self._x.tensor_split([self.cut]), strict=True):
                part.reside(own)
        return self._x

    def read(self, index: int) -> Any:
        return self.parts[index >= self.cut].read(index - self.cut * (index >= self.cut))

    def name_of(self, index: int) -> str:
        return self.parts[index >= self.cut].name_of(index - self.cut * (index >= self.cut))


def check_pretrain_on(which: str) -> None:
    """`dataset.pretrain_on` as given: all or unlabelled; else a RequestError."""
    if which not in ("all", "unlabelled"):
        raise RequestError(
            f"dataset.pretrain_on={which} must be all or unlabelled",
            "all: train and unlabelled together; unlabelled: that split alone, where there is one",
        )


def pretrain_source(train: Source, unlabelled: Source | None, which: str, notes: list[str]) -> Source | None:
    """The `unlabelled` of a Dataset: what pretraining reads where there is an unlabelled split; said in the notes."""
    if unlabelled is None:
        return None
    a, b = plural(len(train), "sample"), plural(len(unlabelled), "unlabelled sample", "unlabelled samples")
    if which == "all":
        notes.append(
            f"pretraining reads the {a} of train and the {b} (dataset.pretrain_on=unlabelled: the latter only)"
        )
        return Concat(train, unlabelled)
    notes.append(f"pretraining reads the {b} only: the {a} of train are left out (dataset.pretrain_on=all: both)")
    return unlabelled


def unlabelled_only(dataset: Dataset) -> Source | None:
    """The samples of the unlabelled split alone, where pretraining reads train and these."""
    both = dataset.unlabelled
    return both.parts[1] if isinstance(both, Concat) and both.parts[0] is dataset.train else both
