"""Names of the samples of a data set that are unique over its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sslcli.data.dataset import Dataset, Source
from sslcli.data.subset import unlabelled_only


def splits_of(dataset: Dataset) -> dict[str, Source]:
    """The splits with samples, by name: train, test, and what only pretraining reads."""
    parts = {"train": dataset.train, "test": dataset.test, "unlabelled": unlabelled_only(dataset)}
    return {name: source for name, source in parts.items() if source is not None and len(source)}


class SampleNames(Sequence[str]):
    """The names of the samples of all splits, one split after the other: that of a file below `root`, else `SPLIT/NAME`, or
    `SPLIT/NUMBER` for samples without names."""

    def __init__(self, splits: Mapping[str, Source], root: str | None):
        self._splits, self._root = splits, root or ""
        first = next(iter(splits.values()))
        self._are_files = bool(
            root and first.names is not None and len(first) and os.path.isfile(os.path.join(root, first.name_of(0)))
        )

    def __len__(self) -> int:
        return sum(map(len, self._splits.values()))

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        for split, part in self._splits.items():
            if index < len(part):
                return self.name(split, part, index)
            index -= len(part)
        raise AssertionError(at)

    def name(self, split: str, source: Source, index: int) -> str:
        if self._are_files:
            return source.name_of(index)
        return f"{split}/{index if source.names is None else source.name_of(index)}"


class SamplePaths(SampleNames):
    """The path of each sample, "" for one that is in no file of its own."""

    def name(self, split: str, source: Source, index: int) -> str:
        return os.path.join(self._root, source.name_of(index)) if self._are_files else ""


def sample_names(dataset: Dataset) -> SampleNames:
    return SampleNames(splits_of(dataset), dataset.details.get("root") or dataset.path)
