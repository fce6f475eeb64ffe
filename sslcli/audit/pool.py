"""The samples of all splits of a data set as one source."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Source
from sslcli.data.samples.names import SampleNames, sample_names, splits_of
from sslcli.data.subset import Concat


@dataclass(frozen=True)
class Pool:
    """splits: names and sources, in the order of the samples. source: all samples. names: unique ones. is_test: (n,) bool. labels:
    (n,) int64, -1 where a sample has none."""

    dataset: Dataset
    splits: dict[str, Source]
    source: Source
    names: SampleNames
    is_test: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def class_name(self, y: int) -> str:
        return self.dataset.classes[y] if y < len(self.dataset.classes) else str(y)

    def label(self, sample: int) -> str:
        """The name of a sample's class; empty where it has none."""
        y = int(self.labels[sample])
        return "" if y < 0 else self.class_name(y)


def pool_of(dataset: Dataset) -> Pool:
    """All samples of a data set; unreadable ones do not end the reading of it, however many there are."""
    splits = splits_of(dataset)
    source = functools.reduce(Concat, splits.values())
    source.max_bad_fraction = 1.0
    is_test = torch.cat([torch.full((len(part),), name == "test") for name, part in splits.items()])
    y = source.labels
    labels = torch.full((len(source),), -1) if y is None else y.to(torch.int64)
    return Pool(dataset, splits, source, sample_names(dataset), is_test, labels)
