"""Sources of samples (ids 0..n-1 to raw tensors), preprocessors (a user's samples to raw ones), and data sets made of both.
Labels are kept beside the samples.

A `Source` is either *resident* (all samples in memory, in a `Storage`: uint8 images (n, C, H, W), float32 series (n, C, T)) or
*streamed* (`read(i)` decodes one sample; images of any size). A `Dataset` holds the sources of one data set and the
properties that a model needs: shape, values, classes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from sslcli.data.histories.next_items import NextItems
from sslcli.data.image_text.captions import Captions
from sslcli.data.storage import Dense, Storage
from sslcli.data.timeline import Timeline
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous, Values
from sslcli.runs.files import hash_files


class Source(ABC):
    """n samples of one modality."""

    labels: Tensor | None = None  # (n,) int64; -1 where a sample has none
    names: Sequence[str] | None = None  # a name for each sample (a path), for messages and CSV
    # (n,) int64: the samples of one group (a recording, a patient) are never divided by a split
    groups: Tensor | None = None
    # (n, 3) int64: the recording that a sample is a window of, its first step, and its number of steps
    spans: Tensor | None = None
    recordings: Sequence[str] | None = None  # the names of the recordings that `spans` names
    # of each recording that `spans` names, whether each step (T,) is anomalous: 0, 1, or -1 where that is unknown; int64
    step_labels: Sequence[Tensor] | None = None
    # by name, a number for each sample (n,) float64, NaN where unknown; "value" is the one that a regression predicts
    targets: Mapping[str, Tensor] = MappingProxyType({})
    captions: Captions | None = None  # texts that describe each sample
    bad: Mapping[int, str] = {}  # id -> reason of the samples found unreadable while reading all into memory
    max_bad_fraction = 0.01  # a larger fraction of unreadable samples ends a run

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def resident(self) -> Storage | None:
        """All raw samples, or None when they are read one by one."""
        return None

    def set_resident(self, x: Storage) -> None:  # noqa: B027
        """Use `x`, another copy of the raw samples, so that its own copy can be freed."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """One raw sample: a tensor, or a decoded PIL image when streamed. BadSample for one that cannot be read."""

    def checked(self, index: int) -> Any:
        """`read` with everything decoded and all checksums verified."""
        return self.read(index)

    def name_of(self, index: int) -> str:
        return self.names[index] if self.names is not None else f"sample {index}"


class ArraySource(Source):
    """Samples in memory: a storage, or a tensor such as (n, C, H, W) uint8 or (n, C, T) float32."""

    def __init__(
        self,
        x: Tensor | Storage,
        labels: Tensor | None = None,
        names: Sequence[str] | None = None,
        groups: Tensor | None = None,
        targets: Mapping[str, Tensor] | None = None,
    ):
        assert labels is None or len(labels) == len(x), (len(x), None if labels is None else len(labels))
        assert all(len(values) == len(x) for values in (targets or {}).values()), len(x)
        self.storage = Dense(x) if isinstance(x, Tensor) else x
        self.labels, self.names, self.groups = labels, names, groups
        self.targets = dict(targets or {})

    def __len__(self) -> int:
        return len(self.storage)

    @property
    def x(self) -> Tensor:
        """The samples (n, ...), where all have one shape."""
        assert isinstance(self.storage, Dense), type(self.storage)
        return self.storage.tensor

    @property
    def resident(self) -> Storage:
        return self.storage

    def set_resident(self, x: Storage) -> None:
        self.storage = x

    def read(self, index: int) -> Tensor:
        return self.storage[index]


class ListSource(Source):
    """Samples in a list, each converted by `load` when it is asked for. A DataError of `load` is raised by `read`."""

    def __init__(self, samples: Sequence[Any], load: Callable[[Any], Any]):
        self.samples, self.load = samples, load

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Any:
        return self.load(self.samples[index])


class Preprocessor(ABC):
    """Converts samples as a user has them to raw samples, the input of views, and back.

    It is fitted once, on training samples, and saved with the run and with every exported encoder, so that later data are
    converted in the same way: `preprocess.py` reads it. The class of a modality is `preprocessor` in configs/modality/NAME.yaml.
    """

    kind: ClassVar[str]  # the name of the modality
    shape: tuple[int, ...]  # of one sample of a clean view
    values: Values  # of a view

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that was fitted or chosen, as plain finite JSON; `from_json` is the inverse."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        """The object that `to_json` and `files` described. The files may come from an untrusted source: ValueError, with a
        sentence, for anything that those do not return."""

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        """The preprocessor of a data set without one of its own, where these fields of `Dataset` determine it."""
        raise NotImplementedError(f"a data set of the modality {cls.kind} must have a preprocessor")

    @abstractmethod
    def encode(self, samples: Any) -> Tensor | list[Any]:
        """Raw samples: one tensor (N, ...), or a list where sizes differ. DataError for samples of another type or shape."""

    def source(self, samples: Any) -> Source:
        """The samples of `encode`, which takes them all at once unless a class overrides it."""
        raw = self.encode(samples)
        return ArraySource(raw) if isinstance(raw, Tensor) else ListSource(raw, lambda sample: sample)

    @abstractmethod
    def decode(self, raw: Tensor) -> list[Any]:
        """Raw samples (N, ...) as the user has them, as far as `encode` keeps that."""

    def files(self) -> dict[str, bytes]:
        """All files by name; one of them is preprocessor.json, with `kind` and what `to_json` returns."""
        content = json.dumps({"kind": self.kind, **self.to_json()}, indent=2, allow_nan=False)
        return {"preprocessor.json": content.encode() + b"\n"}

    @property
    def sha256(self) -> str:
        """A hash of the names and contents of all files."""
        return hash_files(self.files())

    def differences(self, other: Preprocessor) -> list[str]:
        """Descriptions of how `other` differs from this one, `"key was A, is B"`."""
        if type(self) is not type(other):
            return [f"the kind of data was {self.kind}, is {other.kind}"]
        before, now = self.to_json(), other.to_json()
        keys = [*before, *(key for key in now if key not in before)]
        changed = [f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
        return changed or (["its files differ"] if self.sha256 != other.sha256 else [])

    def configure(self, node: dict[str, Any], same_data: bool = False) -> dict[str, Any]:
        """The configuration of a data set with this preprocessor's choices for keys that are null or auto. `same_data`: of the
        data that it was fitted on."""
        return node

    def with_file_options(self, options: Mapping[str, Any]) -> Self:
        """This preprocessor for files that are written in another way than those it was fitted on. `options`: the keys of the data
        set that a user gave, of which those that say how files are written are used. RequestError for a wrong value."""
        return self

    def for_new_data(self, node: Mapping[str, Any], notes: list[str]) -> Self:
        """This preprocessor for a new training on other data, whose configuration `node` says how their files are written;
        deviations from the files that it was fitted on are added to `notes`. RequestError for a wrong value."""
        return self

    def with_values(self, values: Values) -> Self:
        """This preprocessor of samples that are normalized otherwise, where it holds `values`."""
        return self

    def size_hint(self, shape: tuple[int, ...]) -> str | None:
        """The override with which samples of `shape` have the shape that this preprocessor has; None where there is none."""
        return None

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """A data set as the encoders of this preprocessor take it, with its `values`; conversions are listed in `notes`.
        RequestError where the samples do not fit."""
        if dataset.shape != self.shape:
            raise RequestError(
                f"this encoder takes samples of shape {self.shape}; those of {dataset.name} have {dataset.shape}"
            )
        own = None if dataset.preprocessor is None else self
        return replace(dataset, values=self.values, preprocessor=own)


@dataclass
class Dataset:
    """The splits of one data set. Pretraining reads `unlabelled`, or `train` where that is None."""

    name: str
    modality: str  # a name of configs/modality: "image", "series"; see views/modality.py
    shape: tuple[int, ...]  # of one sample of a view: (C, S, S) or (C, T)
    train: Source
    test: Source | None
    classes: tuple[str, ...] = ()  # () when there are no labels
    task: Literal["classes", "value"] = (
        "classes"  # what evaluators predict: the labels, or the target "value" of the sources
    )
    unlabelled: Source | None = None
    values: Values = field(default_factory=Continuous)  # what the numbers of a view are, and how they are normalized
    # None: the one that `shape`, `values` and `details` determine, see preprocess.preprocessor_of
    preprocessor: Preprocessor | None = None
    fingerprint: str = ""  # hash that identifies the samples: their count, and names or contents
    split: str = ""  # hash of the ids held out here; "" where the data set has a split of its own, or none
    path: str | None = None  # absolute path of the samples; None for data sets without a path
    other_paths: dict[str, str] = field(default_factory=dict)  # absolute paths of further files, by key: {"test": ...}
    notes: list[str] = field(default_factory=list)  # printed at the start: what was found, ignored and decided
    id: str | None = None  # the column of identifiers, which are the names of the samples
    timeline: Timeline | None = None  # recordings that are divided in time, for forecasts
    next_items: NextItems | None = None  # whole histories of users, for recommendation
    details: dict[str, Any] = field(default_factory=dict)  # the same for programs: layout, counts of ignored files

    @property
    def pretrain(self) -> Source:
        return self.unlabelled if self.unlabelled is not None else self.train


def labeled_ids(source: Source) -> Tensor:
    """(m,) int64: the ids of the samples that have a label."""
    if source.labels is None:
        return torch.empty(0, dtype=torch.int64)
    return torch.nonzero(source.labels >= 0).flatten()
