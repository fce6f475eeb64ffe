"""Sources of samples (ids 0..n-1 to raw tensors) and data sets made of them. Labels are kept beside the samples.

A `Source` is either *resident* (all samples in one tensor: uint8 images (n, C, H, W), float32 series (n, C, T)) or
*streamed* (`read(i)` decodes one sample; images of any size). A `Dataset` holds the sources of one data set and the
properties that a model needs: shape, values, classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcli.nn.values import Continuous, Values


class Source(ABC):
    """n samples of one modality."""

    labels: Tensor | None = None  # (n,) int64; -1 where a sample has none
    names: Sequence[str] | None = None  # a name for each sample (a path), for messages and CSV
    # (n,) int64: the samples of one group (a recording, a patient) are never divided by a split
    groups: Tensor | None = None
    bad: Mapping[int, str] = {}  # id -> reason of the samples found unreadable while reading all into memory
    max_bad_fraction = 0.01  # a larger fraction of unreadable samples ends a run

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def resident(self) -> Tensor | None:
        """All raw samples at once, or None when they are read one by one."""
        return None

    def set_resident(self, x: Tensor) -> None:  # noqa: B027
        """Use `x`, another copy of the raw samples, as the resident tensor, so that its own copy can be freed."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """One raw sample: a tensor, or a decoded PIL image when streamed."""

    def name_of(self, index: int) -> str:
        return self.names[index] if self.names is not None else f"sample {index}"


class ArraySource(Source):
    """Samples in memory: (n, C, H, W) uint8, or (n, C, T) float32."""

    def __init__(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        names: Sequence[str] | None = None,
        groups: Tensor | None = None,
    ):
        assert labels is None or len(labels) == len(x), (len(x), None if labels is None else len(labels))
        self.x, self.labels, self.names, self.groups = x, labels, names, groups

    def __len__(self) -> int:
        return len(self.x)

    @property
    def resident(self) -> Tensor:
        return self.x

    def set_resident(self, x: Tensor) -> None:
        self.x = x

    def read(self, index: int) -> Tensor:
        return self.x[index]


@dataclass
class Dataset:
    """The splits of one data set. Pretraining reads `unlabelled`, or `train` where that is None."""

    name: str
    modality: str  # a name of configs/modality: "image", "series"; see views/modality.py
    shape: tuple[int, ...]  # of one sample of a view: (C, S, S) or (C, T)
    train: Source
    test: Source | None
    classes: tuple[str, ...] = ()  # () when there are no labels
    unlabelled: Source | None = None
    values: Values = field(default_factory=Continuous)  # what the numbers of a view are, and how they are normalized
    fingerprint: str = ""  # hash that identifies the samples: their count, and names or contents
    split: str = ""  # hash of the ids held out here; "" where the data set has a split of its own, or none
    path: str | None = None  # absolute path of the samples; None for data sets without a path
    notes: list[str] = field(default_factory=list)  # printed at the start: what was found, ignored and decided
    details: dict[str, Any] = field(default_factory=dict)  # the same for programs: layout, counts of ignored files

    @property
    def pretrain(self) -> Source:
        return self.unlabelled if self.unlabelled is not None else self.train


def labeled_ids(source: Source) -> Tensor:
    """(m,) int64: the ids of the samples that have a label."""
    if source.labels is None:
        return torch.empty(0, dtype=torch.int64)
    return torch.nonzero(source.labels >= 0).flatten()
