"""The samples that a trained encoder is to see: files of a user, or a data set."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sslcli import console
from sslcli.builders import load_dataset
from sslcli.config import Config
from sslcli.config.overrides import override_keys
from sslcli.data.dataset import Dataset, Source
from sslcli.data.record import read_record
from sslcli.data.samples.names import SampleNames, SamplePaths, splits_of
from sslcli.data.split import NOTHING_HELD_OUT
from sslcli.data.subset import Concat
from sslcli.data.user_files.samples import UserFiles, expand
from sslcli.errors import RequestError
from sslcli.evals.base.evaluated_model import load_other_dataset
from sslcli.inference.encoder import TrainedEncoder
from sslcli.views.modality import modality

SPLITS = ("all", "train", "test")
ITEMS = "items"  # instead of a split: what samples consist of, each as a sample


@dataclass(frozen=True)
class InputRequest:
    """What a command line says about the samples. Plain JSON values, because other processes read the same samples.

    files: paths of files and folders. dataset: the configuration of `dataset=NAME`; None for that of the run. data_path:
    `dataset.path=NEW` alone. split: one of SPLITS. given: the keys of `dataset` that the command line has."""

    files: tuple[str, ...] = ()
    dataset: Config | None = None
    data_path: str | None = None
    split: str = "all"
    given: tuple[str, ...] = ()

    @classmethod
    def parse(cls, files: Iterable[str], values: Config, overrides: list[str], split: str = "all") -> InputRequest:
        """`files`: paths and patterns. `values`: the resolved configuration that `overrides` compose. RequestError."""
        keys = override_keys(overrides)
        expanded = tuple(expand(files))
        if split == ITEMS:
            if expanded or any(key.split(".")[0] == "dataset" for key in keys):
                raise RequestError("the items are those of the encoder", "leave files and dataset= out")
            return cls(split=ITEMS)
        if split not in SPLITS:
            raise RequestError(f"split={split}: expected {', '.join(SPLITS)}", "split=all")
        if expanded and any(key.split(".")[0] == "dataset" for key in keys):
            raise RequestError("files and dataset= are both given", "leave one of them out")
        if expanded and split != "all":
            raise RequestError(f"split={split}: files have no split", "leave split= out")
        if "dataset" in keys:
            given = tuple(key.split(".")[1] for key in keys if key.startswith("dataset."))
            return cls(dataset=values["dataset"], split=split, given=given)
        if other := next((k for k in keys if k.startswith("dataset.") and k != "dataset.path"), None):
            raise RequestError(
                f"{other}: the data set is that of the run", f"dataset=NAME {other}=... names another one"
            )
        return cls(expanded, None, values["dataset"].get("path") if "dataset.path" in keys else None, split)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "files": list(self.files), "given": list(self.given)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> InputRequest:
        return cls(**{**content, "files": tuple(content["files"]), "given": tuple(content["given"])})


@dataclass(frozen=True)
class Inputs:
    """Samples as an encoder takes them.

    dataset: with the shape and the values of the encoder. source: all chosen samples, n of them, with labels (n,) where there are
    some, -1 for none, which index `dataset.classes`. ids: a unique name of each: its identifier in the column `dataset.id`, where
    these do not repeat across files and splits. paths: the file of each, "" where it is in none. unreadable: path -> reason, of
    files of which no sample is in the source. places: what stands for the path of each in a table of predictions. titles: of each,
    for people; empty where there are none."""

    request: InputRequest
    dataset: Dataset
    source: Source
    ids: Sequence[str]
    paths: Sequence[str]
    unreadable: Mapping[str, str]
    places: Sequence[str]
    titles: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.source)

    def label(self, index: int) -> str | float | None:
        """The class of a sample, or its value where that is the task; None without one."""
        if self.dataset.task == "value":
            values = self.source.targets.get("value")
            value = math.nan if values is None else float(values[index])
            return value if math.isfinite(value) else None
        label = -1 if self.source.labels is None else int(self.source.labels[index])
        return None if label < 0 else self.dataset.classes[label]

    @property
    def labeled(self) -> bool:
        """Whether samples may have labels or values."""
        return "value" in self.source.targets if self.dataset.task == "value" else self.source.labels is not None

    @property
    def fingerprint(self) -> str:
        """What identifies the samples and their order."""
        return f"{self.dataset.name} {self.dataset.fingerprint} {self.dataset.split} {self.request.split} {len(self)}"


def read_inputs(encoder: TrainedEncoder, request: InputRequest) -> Inputs:
    """The samples of a request, adapted to an encoder; notes and warnings go to stderr.

    RequestError for samples of another kind or shape and where nothing is named, DataError where none can be read."""
    notes: list[str] = []
    if request.split == ITEMS:
        found = modality(encoder.preprocessor.kind).items(encoder.preprocessor)
        inputs = _of_files(request, found.dataset, found)
    elif request.files:
        found = modality(encoder.preprocessor.kind).read_files(request.files, encoder.preprocessor, notes)
        dataset = encoder.preprocessor.adapt(found.dataset, notes)
        inputs = _of_files(request, dataset, found)
    else:
        own = request.dataset is None
        dataset = _own_dataset(encoder, request, notes) if own else _other_dataset(encoder, request, notes)
        inputs = _of_split(dataset, request)
    for note in dict.fromkeys([*inputs.dataset.notes, *notes]):
        if note != NOTHING_HELD_OUT:
            console.say(note)
    inputs.source.max_bad_fraction = 1.0  # unreadable samples are reported, and end nothing
    return inputs


def _own_dataset(encoder: TrainedEncoder, request: InputRequest, notes: list[str]) -> Dataset:
    """The data set of the run, also where the files have changed since."""
    if encoder.run is None:
        raise RequestError(
            f"{encoder.spec} is no run, so that it has no data set of its own", "name files, or dataset=NAME"
        )
    cfg = encoder.run.valid_config
    record = read_record(encoder.run, request.data_path, allow_change=True)
    dataset = load_dataset({**cfg, "dataset": _tolerant(cfg["dataset"])}, record, download=False)
    notes += [f"the data changed since the run was trained: {change}" for change in dataset.details.get("changed", [])]
    return dataset


def _other_dataset(encoder: TrainedEncoder, request: InputRequest, notes: list[str]) -> Dataset:
    """The data set that the command line names, in files that may be written in another way than those of training."""
    own, node = encoder.preprocessor, request.dataset or {}
    return load_other_dataset({"dataset": _tolerant(own.configure(node))}, own, request.given, notes)


def _tolerant(node: Config) -> Config:
    return {**node, "max_bad_fraction": 1.0} if "max_bad_fraction" in node else node


def _of_split(dataset: Dataset, request: InputRequest) -> Inputs:
    """The samples of a split; of all: train, test, and those that only pretraining reads."""
    parts = splits_of(dataset)
    if request.split != "all":
        parts = {name: part for name, part in parts.items() if name == request.split}
    if not parts:
        raise RequestError(f"split={request.split}: {dataset.name} has no such split", "split=all")
    source = functools.reduce(Concat, parts.values())
    root = dataset.details.get("root") or dataset.path
    own = replace(dataset, train=source, test=None, unlabelled=None)
    names = SampleNames(parts, root)
    return Inputs(request, own, source, _ids(own, names), SamplePaths(parts, root), {}, names)


def _of_files(request: InputRequest, dataset: Dataset, found: UserFiles) -> Inputs:
    places = found.ids if dataset.id is None else found.paths
    ids = _ids(dataset, found.ids)
    return Inputs(request, dataset, dataset.train, ids, found.paths, found.unreadable, places, found.titles)


def _ids(dataset: Dataset, names: Sequence[str]) -> Sequence[str]:
    """The identifiers of all samples, where there are some and they do not repeat, else `names`."""
    own = dataset.train.names if dataset.id is not None else None
    return names if own is None or len(set(own)) < len(own) else own
