"""Kinds of data. A modality says how views of its samples are made, shown, corrupted and compared with simple baselines.

A modality is a file of this folder with one class derived from `Modality`, and configs/modality/NAME.yaml, which names the
class and what the modality provides. Nothing outside the data sets, views and backbones of a modality asks which modality there
is, or counts axes.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sslcli.config import instantiate
from sslcli.config.modalities import description
from sslcli.data.dataset import Dataset, Source
from sslcli.nn.values import Values
from sslcli.rng import Draw
from sslcli.views.op import Op
from sslcli.views.preview.base import Preview

Corruption = Callable[
    [Tensor, int, Sequence[torch.Generator]], Tensor
]  # (B, ...), severity 0..4, a generator per sample


class View(Protocol):
    """One view of a plan. `shape` and `dtype`: of one sample of the view."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """Raw samples (B, ...) in memory -> (B, *shape)."""

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Decoded samples of any sizes -> a compact batch, for worker processes."""

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """The output of `frame` -> (B, *shape), on the device."""

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalization: (B, *shape) in the units of the data."""


class RawFeatures:
    """What a linear model has without any backbone: a vector for each sample. Fitted on training samples alone."""

    def fit(self, source: Source, ids: Tensor) -> None:
        """Fit to the training samples `ids` of `source`; nothing to fit unless a modality overrides it."""

    def transform(self, source: Source, ids: Tensor, x: Tensor) -> Tensor:
        """Clean views x (B, *shape) of the samples `ids` -> (B, p) float32 without NaN."""
        raise NotImplementedError


class Modality(ABC):
    """The base class. See the module's documentation."""

    noun: ClassVar[tuple[str, str]]  # of one sample and of several, for sentences: ("image", "images")
    ops: ClassVar[Mapping[str, type[Op]]]
    channels_last: ClassVar[bool] = False  # whether convolutions are faster with channels as the last axis in memory
    mixes: ClassVar[bool] = False  # whether a convex combination of two samples is a sample (mixup, CutMix)
    attacks: ClassVar[bool] = False  # whether a bound on the change of each value is meaningful (adversarial attacks)
    unit: ClassVar[str] = "standard deviations"  # of reconstruction errors

    @abstractmethod
    def view(self, ops: list[Op], dataset: Dataset) -> View:
        """The view that applies `ops`, from `make_ops`, to samples of the data set."""

    @abstractmethod
    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        """How each of the views x (B, *shape), normalized, on any device, is shown to people: in the units of the data."""

    def dummy(self, shape: tuple[int, ...], values: Values, n: int) -> Tensor:
        """`n` blank samples of a view (n, *shape), to try a method with."""
        return torch.zeros(n, *shape)


@functools.cache
def modality(name: str) -> Modality:
    """The object of a modality. RequestError for an unknown name."""
    out = instantiate.resolve("modality", description(name)["_target_"])()
    assert isinstance(out, Modality), out
    return out
