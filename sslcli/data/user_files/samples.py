"""Samples in files that a user names, without a split: for encoders that are already trained."""

from __future__ import annotations

import bisect
import functools
import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import ArraySource, Dataset, Source
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.scan import scan
from sslcli.data.loading.bad_samples import format_examples
from sslcli.data.storage import Storage
from sslcli.data.subset import Concat, unlabelled_only
from sslcli.errors import DataError, RequestError, listing, nearest

T = TypeVar("T")
EMPTY = "the document is empty"  # the reason of a sample that has no content
LISTED = 5  # unreadable files in a warning


@dataclass(frozen=True)
class UserFiles:
    """Samples of files, in the order in which these were given.

    dataset: its train split has all of them. ids: a unique name of each. paths: the file of each. unreadable: path -> reason, of
    files that hold no sample which could be read. titles: of each, for people; empty where there are none."""

    dataset: Dataset
    ids: Sequence[str]
    paths: Sequence[str]
    unreadable: Mapping[str, str]
    titles: Sequence[str] = ()


def expand(names: Iterable[str]) -> list[str]:
    """The files and folders that paths and patterns (`*.png`, `**/*.png`) name, each once. RequestError where there is none."""
    found: dict[str, None] = {}
    for name in names:
        path = os.path.expanduser(name)
        if os.path.lexists(path):
            found[path] = None
            continue
        matches = sorted(glob.glob(path, recursive=True)) if any(c in path for c in "*?[") else []
        if not matches:
            raise RequestError(f"there is no file {escape(name)}", _similar(path))
        found |= dict.fromkeys(matches)
    return list(found)


def _similar(path: str) -> str | None:
    folder = os.path.dirname(path) or "."
    close = nearest(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else None
    return f"did you mean {escape(os.path.join(os.path.dirname(path), close))}?" if close else None


def list_files(
    path: str, accept: Callable[[str], bool], what: str, unreadable: dict[str, str]
) -> list[tuple[str, int]]:
    """(path, bytes) of the files below a folder whose name `accept` accepts, sorted; empty ones become `unreadable`.

    DataError where there is none. `what`: "image files"."""
    folder = scan(path, accept)
    unreadable |= dict.fromkeys(folder.empty, "the file is empty")
    unreadable |= dict.fromkeys(folder.denied, "the folder may not be read")
    if not folder.files and not folder.empty:
        holds = ", ".join(f"{n:,} {ending}" for ending, n in folder.ignored.most_common(5)) or "nothing"
        raise DataError(f"{escape(path)} has no file of the kind that this encoder takes, {what}; it holds {holds}")
    return [(os.path.join(path, *parts), size) for parts, size in folder.files]


class Unreadable(dict[str, str]):
    """path -> reason of files that cannot be read. errors: those that were raised."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[DataError] = []

    def add(self, path: str, error: DataError) -> None:
        """The reason without the name of the file, with which most messages begin."""
        name, message = escape(path), error.message
        short = next(
            (message.removeprefix(name + mark) for mark in (": ", ", ") if message.startswith(name + mark)), None
        )
        self[path] = short or message
        self.errors.append(error)

    @property
    def hint(self) -> str | None:
        """Of the first error that has one."""
        return next((error.hint for error in self.errors if error.hint), None)

    @property
    def notes(self) -> list[str]:
        """A warning, where there are such files."""
        if not self:
            return []
        advice = "" if self.hint is None else f"; {self.hint}"
        return [f"warning: {plural(len(self), 'file')} cannot be read: {format_examples(self, LISTED)}{advice}"]


def read_each(paths: Iterable[str], read: Callable[[str], T], notes: list[str]) -> tuple[list[T], dict[str, str]]:
    """What `read` makes of each file, and path -> reason of those for which it raises DataError, with a note, unless it does for
    all."""
    made: list[T] = []
    unreadable = Unreadable()
    for path in paths:
        try:
            made.append(read(path))
        except DataError as error:
            unreadable.add(path, error)
    if not made:
        raise none_readable(unreadable)
    notes += unreadable.notes
    return made, unreadable


def without_split(dataset: Dataset) -> Dataset:
    """A data set whose train split has all samples of the file, also where the file has a split of its own."""
    parts = [part for part in (dataset.test, unlabelled_only(dataset)) if part is not None]
    train = functools.reduce(Concat, parts, dataset.train)
    return replace(dataset, train=train, test=None, unlabelled=None)


def none_readable(unreadable: Mapping[str, str]) -> DataError:
    """The error of the file, where it is one."""
    errors = unreadable.errors if isinstance(unreadable, Unreadable) else []
    if len(unreadable) == len(errors) == 1:
        return errors[0]
    reasons = listing((f"{escape(path)}: {reason}" for path, reason in unreadable.items()), 3)
    hint = unreadable.hint if isinstance(unreadable, Unreadable) else None
    return DataError(f"none of {plural(len(unreadable), 'file')} can be read: {reasons}", hint)


@dataclass(frozen=True)
class FilePart:
    """The samples of one file, or of a folder whose files are samples: the train split of `dataset`. `folder`: whether their names
    are files below `path`."""

    path: str
    dataset: Dataset
    folder: bool = False

    def path_of(self, index: int) -> str:
        return os.path.join(self.path, self.dataset.train.name_of(index)) if self.folder else self.path

    def id_of(self, index: int) -> str:
        if self.folder:
            return self.path_of(index)
        return self.path if len(self.dataset.train) == 1 else f"{self.path}:{self.dataset.train.name_of(index)}"

    def name_of(self, index: int) -> str:
        """The identifier of a sample, where the file has a column of them."""
        return self.id_of(index) if self.dataset.id is None else self.dataset.train.name_of(index)


class _Places(Sequence[str]):
    """A text for each sample of several parts, made when it is asked for."""

    def __init__(self, parts: Sequence[FilePart], text: Callable[[FilePart, int], str]):
        self._parts, self._text = parts, text
        self._ends = list(accumulate(len(part.dataset.train) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        i = bisect.bisect_right(self._ends, range(len(self))[at])
        return self._text(self._parts[i], at - (self._ends[i - 1] if i else 0))


def join(parts: Sequence[FilePart], unreadable: Mapping[str, str]) -> UserFiles:
    """The samples of several parts in memory, one after another; the classes are those of all. RequestError where their shapes
    differ."""
    first, sources = parts[0].dataset, [part.dataset.train for part in parts]
    storages = [source.resident for source in sources]
    shapes = list(dict.fromkeys(storage.sample_shape for storage in storages if storage is not None))
    if len(shapes) > 1:
        others = next(p for p in parts if (x := p.dataset.train.resident) is not None and x.sample_shape != shapes[0])
        raise RequestError(
            f"the samples of {escape(parts[0].path)} have the shape {shapes[0]}, those of {escape(others.path)} "
            f"{shapes[1]}: files of several samples must have one shape",
            "one command for each",
        )
    classes = tuple(dict.fromkeys(name for part in parts for name in part.dataset.classes))
    ids, id = _Places(parts, FilePart.id_of), next((part.dataset.id for part in parts if part.dataset.id), None)
    source = ArraySource(
        _concatenate([storage for storage in storages if storage is not None]),
        _labels(parts, classes),
        ids if id is None else _Places(parts, FilePart.name_of),
        targets=_targets(sources),
    )
    starts = accumulate(map(len, sources), initial=0)
    source.bad = {start + i: why for start, one in zip(starts, sources, strict=False) for i, why in one.bad.items()}
    identity = (
        text.encode("utf-8", "surrogateescape") for part in parts for text in (part.path, part.dataset.fingerprint)
    )
    whole = fingerprint(len(source), identity)
    dataset = replace(first, train=source, test=None, unlabelled=None, classes=classes, fingerprint=whole, id=id)
    warnings = dict.fromkeys(note for part in parts for note in part.dataset.notes if note.startswith("warning"))
    return UserFiles(replace(dataset, notes=list(warnings)), ids, _Places(parts, FilePart.path_of), unreadable)


def _concatenate(storages: list[Storage]) -> Storage:
    """In pairs, so that each sample is copied a few times at most."""
    while len(storages) > 1:
        pairs = [storages[i : i + 2] for i in range(0, len(storages), 2)]
        storages = [functools.reduce(lambda a, b: a.concat(b), pair) for pair in pairs]
    return storages[0]


def _labels(parts: Sequence[FilePart], classes: tuple[str, ...]) -> Tensor | None:
    if all(part.dataset.train.labels is None for part in parts):
        return None
    index, out = {name: i for i, name in enumerate(classes)}, []
    for dataset in (part.dataset for part in parts):
        table = torch.tensor([*(index[name] for name in dataset.classes), -1])
        labels = dataset.train.labels
        out.append(torch.full((len(dataset.train),), -1) if labels is None else table[labels])
    return torch.cat(out)


def _targets(sources: Sequence[Source]) -> dict[str, Tensor]:
    names = {name for source in sources for name in source.targets}
    missing = [torch.full((len(source),), torch.nan, dtype=torch.float64) for source in sources]
    return {
        name: torch.cat([source.targets.get(name, none) for source, none in zip(sources, missing, strict=True)])
        for name in names
    }
