"""Where samples come from: ids 0..n-1 to raw tensors. Labels stand beside the samples, never inside a batch.

A `Source` is either *resident* (all samples in one tensor: uint8 images (n, C, H, W), float32 series (n, C, T)) or
*streamed* (`read(i)` decodes one sample; images of any size). A `Dataset` is the sources of one data set and what must
be known to build a model for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Source(ABC):
    """n samples of one modality."""

    labels: Tensor | None = None  # (n,) int64; -1 where a sample has none
    names: Sequence[str] | None = None  # a name for each sample (a path), for messages and CSV
    groups: Tensor | None = (
        None  # (n,) int64: samples of one group (a recording, a patient) stand on one side of any split
    )
    bad: Mapping[int, str] = {}  # id -> reason of what was found unreadable while reading all into memory
    max_bad_fraction = 0.01  # more unreadable samples than this share end a run

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def resident(self) -> Tensor | None:
        """All raw samples at once, or None when they are read one by one."""
        return None

    def reside(self, x: Tensor) -> None:  # noqa: B027
        """The raw samples lie in memory once more, in `x`: where `resident` can lie there it does."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """One raw sample: a tensor, or a decoded PIL image when streamed."""

    def name_of(self, index: int) -> str:
        return self.names[index] if self.names is not None else f"sample {index}"


class ArraySource(Source):
    """Samples that are in memory: (n, C, H, W) uint8, or (n, C, T) float32."""

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

    def reside(self, x: Tensor) -> None:
        self.x = x

    def read(self, index: int) -> Tensor:
        return self.x[index]


@dataclass
class Dataset:
    """The splits of one data set. `unlabelled` is what pretraining reads besides nothing else; None means `train`."""

    name: str
    modality: str  # "image", "series": chooses how views are made, nothing else
    shape: tuple[int, ...]  # of one sample of a view: (C, S, S) or (C, T)
    train: Source
    test: Source | None
    classes: tuple[str, ...] = ()  # () when there are no labels
    unlabelled: Source | None = None
    mean: tuple[float, ...] = (0.5,)  # per channel, of training samples (images: in 0..1)
    std: tuple[float, ...] = (0.5,)
    fingerprint: str = ""  # hash of what the samples are: count, names or contents
    split: str = ""  # hash of which samples were held out here; "" where the split was given or there is none
    path: str | None = None  # where the samples lie, absolute; None for data sets without a path
    notes: list[str] = field(default_factory=list)  # said at the start: what was found, skipped, decided
    details: dict[str, Any] = field(default_factory=dict)  # the same for programs: counts of what was left out, layout

    @property
    def pretrain(self) -> Source:
        return self.unlabelled if self.unlabelled is not None else self.train


def labeled_ids(source: Source) -> Tensor:
    """(m,) int64: the ids that have a label."""
    if source.labels is None:
        return torch.empty(0, dtype=torch.int64)
    return torch.nonzero(source.labels >= 0).flatten()
