"""Kinds of data. A modality says how views of its samples are made, shown, corrupted and compared with simple baselines.

A modality is a file of this folder with one class derived from `Modality`, and configs/modality/NAME.yaml, which names the
class and what the modality provides. Nothing outside the data sets, views and backbones of a modality asks which modality there
is, or counts axes.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from sslcli.config import instantiate
from sslcli.config.modalities import description
from sslcli.data.dataset import Dataset, Preprocessor, Source
from sslcli.data.user_files.samples import UserFiles
from sslcli.errors import RequestError
from sslcli.nn.values import Values
from sslcli.rng import Draw
from sslcli.views.copies import FeatureCopies, NearCopies
from sslcli.views.corruption import Corruption
from sslcli.views.op import Op
from sslcli.views.preview.base import Preview


class View(Protocol):
    """One view of a plan. `shape` and `dtype`: of one sample of the view."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def resident(self, raw: Any, draw: Draw) -> Tensor:
        """Raw samples in memory -> (B, *shape). `raw`: a tensor (B, ...), or a `RaggedBatch` where their lengths differ."""

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Decoded samples of any sizes -> a compact batch, for worker processes."""

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """The output of `frame` -> (B, *shape), on the device."""


class Samples(Protocol):
    """Samples as raw features and baselines take them: clean views (n, *shape), or what `Modality.whole` returns."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Any:
        """The samples at the positions `rows` (m,) int64, in that order."""


@dataclass(frozen=True)
class Terms:
    """The words that characterize groups of samples, the most characteristic first, with their scores."""

    note: str  # what the scores are, for the protocol
    of_groups: list[list[tuple[str, float]]]


class RawFeatures(ABC):
    """What a linear model has without any backbone: a vector for each sample."""

    fitted: ClassVar[bool] = False  # whether `fit` learns anything, so that it must see training samples alone

    def fit(self, batches: Iterator[Any]) -> None:  # noqa: B027
        """Fit to `Samples` of the training split: those of `Modality.whole`, or clean views (B, *shape) without it. They are not
        read where there is nothing to fit."""

    @abstractmethod
    def transform(self, x: Any) -> Tensor:
        """B `Samples` -> (B, p) float32, without NaN. Clean views (B, *shape) on any device are accepted by every modality, also by
        one that defines `whole`: those of corrupted samples have no other form."""


class Baseline(ABC):
    """A model that practitioners use on such data without pretraining. Evaluators fit it to the same labeled samples as the
    probe, and report it as `NAME.top1`, or `NAME.rmse`."""

    note: str  # what it is, for the protocol: "gradient boosting of scikit-learn, default settings"
    weighs_classes: ClassVar[bool] = True  # whether `fit` applies the weights of classes

    @abstractmethod
    def fit(self, x: Any, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Any], Tensor]:
        """Fit to n `Samples`: those of `Modality.whole`, or without it clean views (n, *shape) on the CPU, NaN where a value is
        missing. `y` (n,): classes 0..K-1, each of them with a sample, or float64 values of the task `value`. `class_weight`: as in
        scikit-learn, None or `balanced`.

        Returns a function from m such samples to probabilities (m, K), or to values (m,)."""

    def left_out(self, labeled: int, tested: int) -> str:
        """Why it is not fitted to so many labeled samples, to predict so many: a sentence for the notes. Empty where it is."""
        return ""


class Modality(ABC):
    """The base class. See the module's documentation."""

    noun: ClassVar[tuple[str, str]]  # of one sample and of several, for sentences: ("image", "images")
    ops: ClassVar[Mapping[str, type[Op]]]
    batch_size: ClassVar[int] = 256  # of `train.batch_size=auto`, where there are as many samples
    channels_last: ClassVar[bool] = False  # whether convolutions are faster with channels as the last axis in memory
    native: ClassVar[bool] = False  # whether views have compiled code
    mixes: ClassVar[bool] = False  # whether a convex combination of two samples is a sample (mixup, CutMix)
    attacks: ClassVar[bool] = False  # whether a bound on the change of each value is meaningful (adversarial attacks)
    strings: ClassVar[bool] = False  # whether a string is a sample, not the name of a file
    unit: ClassVar[str] = "standard deviations"  # of reconstruction errors
    psnr: ClassVar[bool] = False  # whether errors are also given as peak signal-to-noise ratio: values are in 0..1
    deleted: ClassVar[str] = "becomes 0, the mean of normalised data"  # what `delete` does, in words
    inserted: ClassVar[str] = "into 0"  # what `insertion_base` is, in words

    @abstractmethod
    def view(self, ops: list[Op], dataset: Dataset) -> View:
        """The view that applies `ops`, from `make_ops`, to samples of the data set."""

    def windows(self, dataset: Dataset) -> View | None:
        """The view (B, W, *shape) of consecutive windows of whole samples, over which evaluations average features; None where the
        clean view is all of a sample, or the data set asks for no more."""
        return None

    def decoded(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Samples of a source that is read one by one, as `View.frame` takes them: converted once for all views."""
        return samples

    @abstractmethod
    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        """How each of the views x (B, *shape), normalized, on any device, is shown to people: in the units of the data."""

    def detail(self, source: Source, dataset: Dataset) -> Mapping[str, Any]:
        """The recipe of a deterministic view that people look at, which may have more detail than that of the backbone."""
        return {}

    def present(self, shown: list[Preview], source: Source, ids: Tensor, dataset: Dataset) -> list[Preview]:
        """Previews of clean views with what only the samples `ids` (B,) of the source have, such as their sound."""
        return shown

    def uncrop(self, shown: list[Preview], source: Source, ids: Tensor, dataset: Dataset) -> list[Preview]:
        """Previews of clean views with all of the samples `ids` (B,) of the source, where the views have a part of them."""
        return shown

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        """The samples in files and folders that exist, as an encoder with this preprocessor takes them, without a split. Files that
        cannot be read are listed; RequestError for those of another kind, DataError where none can be read."""
        raise RequestError(f"{self.noun[1]} are not read from files", "dataset=NAME names a data set")

    def items(self, preprocessor: Preprocessor) -> UserFiles:
        """What samples consist of, each as a sample with a name, such as the items of histories. RequestError where that has no
        names."""
        raise RequestError(f"{self.noun[1]} do not consist of items", "leave pool=items out")

    def describe(self, shape: tuple[int, ...]) -> str:
        """One sample of a view in a few words: `image 3x64x64`."""
        return f"{self.noun[0]} {'x'.join(map(str, shape))}"

    def dummy(self, shape: tuple[int, ...], values: Values, n: int) -> Tensor:
        """`n` blank samples of a view (n, *shape), to try a method with."""
        return torch.zeros(n, *shape)

    # for evaluators -------------------------------------------------------------------------------------------------

    def whole(self, source: Source, ids: Tensor, dataset: Dataset) -> Samples | None:
        """The samples `ids` (n,) of a source without the cut of a clean view, as raw features and baselines take them. None where
        clean views hold everything, so that these are taken."""
        return None

    @abstractmethod
    def raw_features(self, dataset: Dataset) -> RawFeatures:
        """The features of the baseline `raw`."""

    def baselines(self, dataset: Dataset) -> dict[str, Baseline]:
        """The field's own models for `dataset.task`, by the name of their metrics."""
        return {}

    def terms(self, source: Source, groups: Tensor, dataset: Dataset, count: int) -> Terms | None:
        """At most `count` words that characterize each of the groups 0..K-1 of samples; None where samples have no words.

        groups: (n,) int64, the group of each sample of the source, -1 for none."""
        return None

    def spell(self, ids: Sequence[int], dataset: Dataset) -> list[str]:
        """The text of each token of a vocabulary; ids as numbers unless a class overrides it."""
        return [str(i) for i in ids]

    def parse(self, text: str, dataset: Dataset) -> Tensor:
        """The clean view (L,) of a text, with the mask token in place of each `[MASK]`. RequestError where samples are no text."""
        raise RequestError(f"{self.noun[1]} are no text", "leave text= out")

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies | None:
        """How near copies of samples are found; None where samples have too little detail to tell copies from similar ones.
        `features`: the raw features, fitted to the training split."""
        return FeatureCopies(features.transform)

    def doubts_copies(self, dataset: Dataset) -> str | None:
        """Why samples of the same content may be different things, so that `data audit` suggests to look at them; None where they
        are copies, which it suggests to leave out."""
        return None

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        """Scores (B,) of clean views x (B, *shape) by the name of what makes a sample worthless, such as `empty`; NaN for a sample
        without that defect."""
        return {}

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        """By name, functions of clean views (B, *shape) on the CPU, normalized before and after."""
        return {}

    def to_natural(self, x: Tensor, values: Values) -> Tensor:
        """Clean views in the units 0..1 in which attacks are bounded."""
        return x

    def from_natural(self, x: Tensor, values: Values) -> Tensor:
        """The inverse of `to_natural`."""
        return x

    def delete(self, x: Tensor, where: Tensor, values: Values) -> Tensor:
        """Views x (B, *shape) without what is there where `where` is true, which broadcasts to x, for explanations."""
        return values.hide(x, where)

    def removable(self, x: Tensor, values: Values) -> Tensor | None:
        """Bool, of a shape that broadcasts to x: what `delete` may take away. None for everything."""
        return None

    def spans(self, x: Tensor, values: Values, limit: int) -> Tensor | None:
        """(B, *grid) int64: the group, 0 to at most limit - 1, of each position of views x whose effect is measured together by
        occlusion, -1 where nothing can be taken away. None where each position is a group of its own."""
        return None

    def insertion_base(self, x: Tensor, values: Values) -> Tensor:
        """Where the insertion curve of an attribution map starts: x without any information."""
        return self.delete(x, torch.ones_like(x, dtype=torch.bool), values)

    def position_names(self, dataset: Dataset) -> list[str] | None:
        """The name of each position, in the order of `values.grid`, where positions are the same in all samples and have names,
        such as the columns of a table."""
        return None

    def upsample(self, importance: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The importance of positions (B, *grid) for each value, of a shape that broadcasts to (B, *shape)."""
        return importance

    def mean(self, batches: Iterator[Tensor], dataset: Dataset) -> Tensor:
        """The best constant guess (1, *shape) of a sample, from clean views of training samples: the mean of each value."""
        total = torch.zeros(dataset.shape, dtype=torch.float64)
        count = torch.zeros(dataset.shape, dtype=torch.float64)
        for x in batches:
            present = dataset.values.present(x)
            total += torch.where(present, x, 0.0).sum(dim=0, dtype=torch.float32).cpu()
            count += present.sum(dim=0).cpu()
        return (total / count.clamp(min=1)).float()[None]

    def interpolate(self, x: Tensor, known: Tensor) -> Tensor:
        """x with guesses from neighbors where it is not `known`; 0 where positions have no neighbors."""
        return torch.where(known, x, 0.0)

    def trivial(self, x: Tensor, visible: Tensor, values: Values) -> dict[str, Tensor]:
        """By name, guesses of x (B, *shape) from its `visible` values, without learning: the baselines of reconstruction."""
        return {}

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        """By the name of a metric, the error of each value (B, *shape) in `unit`; NaN where it does not apply."""
        return {"mse": values.likelihood().error(guess, target)}


@functools.cache
def modality(name: str) -> Modality:
    """The object of a modality. RequestError for an unknown name."""
    out = instantiate.resolve("modality", description(name)["_target_"])()
    assert isinstance(out, Modality), out
    return out
