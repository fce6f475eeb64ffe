"""Make a data set of histories from events: the vocabulary of items, the division, held-out users, and notes on what was found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sslcli.console import escape, plural
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.files.string_table import StringTable
from sslcli.data.fingerprint import fingerprint
from sslcli.data.histories.division import divide
from sslcli.data.histories.events import EventColumns, Events
from sslcli.data.histories.next_items import FIRST, PAD, NextItems
from sslcli.data.histories.preprocessor import BY_NAME, LONGEST, SHORTEST, InteractionsPreprocessor
from sslcli.data.histories.select import compress, labels_of_users, recode_items
from sslcli.data.split import split, split_hash
from sslcli.data.storage import Ragged
from sslcli.errors import DataError, RequestError, listing

MAX_NAMES = 1_000_000  # more users are named by their numbers, which take no memory


@dataclass
class Options:
    """What the user chose, see `sslcli.data.histories.interactions.interactions`. RequestError for values that are none."""

    max_length: int = 50
    split: str = "last"
    dates: Sequence[Any] | None = None
    holdout: float | str = "auto"
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not SHORTEST <= self.max_length <= LONGEST:
            raise RequestError(
                f"dataset.max_length: expected {SHORTEST} to {LONGEST:,} items, got {self.max_length}",
                "dataset.max_length=50",
            )


def build_dataset(
    name: str,
    events: Events,
    options: Options,
    notes: list[str],
    titles: dict[str, str] | None = None,
    columns: EventColumns | None = None,
    like: InteractionsPreprocessor | None = None,
) -> Dataset:
    """A data set of the histories of users. `events`: those that count, in order. `like`: the preprocessor whose items these are;
    None for a new one. RequestError, DataError."""
    if like is None:
        events = compress(events)
        like = InteractionsPreprocessor(tuple(events.item_names), options.max_length, titles or {}, columns or BY_NAME)
    else:
        events = recode_items(events, list(like.items), notes)
    labels = labels_of_users(events)
    counts = np.bincount(events.users, minlength=len(events.user_names))
    notes.append(
        f"{plural(len(events), 'event')} of {plural(len(counts), 'user')} with {plural(len(like.items), 'item')}, "
        f"median {int(np.median(counts)):,} a user; {(counts > like.max_length).mean():.0%} of the users have more than a view "
        f"of {like.max_length} (dataset.max_length)"
    )
    whole = _divided(events, counts, options, labels, notes)
    train, test = _sources(whole, labels)
    if labels is not None:
        notes.append(f"{plural(len(events.classes), 'class', 'classes')}: {listing(map(escape, events.classes), 6)}")
        notes += class_warnings(tuple(events.classes), int((labels >= 0).sum()))
    return Dataset(
        name=name,
        modality="interactions",
        shape=like.shape,
        train=train,
        test=test,
        classes=tuple(events.classes) if labels is not None else (),
        values=like.values,
        preprocessor=like,
        fingerprint=_fingerprint(events, like, labels),
        split=split_hash((~whole.trained).nonzero()[:, 0]),
        notes=notes,
        next_items=whole,
        details={"layout": "interactions", "items": len(like.items), "events": len(events), "rule": whole.rule},
    )


def _divided(
    events: Events, counts: np.ndarray, options: Options, labels: np.ndarray | None, notes: list[str]
) -> NextItems:
    """The histories of all users with their division. Users are held out where they have labels."""
    train, val, test, rule = divide(events, options.split, options.dates, notes)
    codes = None if labels is None or not (labels >= 0).any() else torch.from_numpy(labels)
    _, held_out = split(len(counts), options.holdout, options.split_seed, codes)
    trained = torch.ones(len(counts), dtype=torch.bool)
    trained[held_out] = False
    if len(held_out):
        notes.append(
            f"held out: {plural(len(held_out), 'user')} of {len(counts):,}, whose events training does not read"
        )
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
    torch.cumsum(torch.from_numpy(counts), 0, out=offsets[1:])
    names: Sequence[str] = StringTable(events.user_names) if len(counts) <= MAX_NAMES else _Numbers(len(counts))
    return NextItems(
        Ragged(torch.from_numpy(events.items + np.int32(FIRST)), offsets, PAD),
        torch.from_numpy(train),
        torch.from_numpy(val),
        torch.from_numpy(test),
        trained,
        len(events.item_names),
        names,
        rule,
    )


def _sources(whole: NextItems, labels: np.ndarray | None) -> tuple[ArraySource, ArraySource | None]:
    """The training events of users that are trained on, and of those held out; users without any are left out."""

    def one(chosen: torch.Tensor) -> ArraySource | None:
        taken = chosen & (whole.train > 0)
        users = taken.nonzero()[:, 0]
        if not len(users):
            return None
        known = None if labels is None else torch.from_numpy(labels)[users]
        every = len(users) == len(whole.users)
        names = whole.users if every else StringTable(itertools.compress(whole.users, taken.tolist()))
        return ArraySource(whole.first(users, whole.train[users]), known, names)

    train = one(whole.trained)
    if train is None:
        raise DataError("no user has a training event", "dataset.split=last dataset.holdout=0")
    return train, one(~whole.trained)


class _Numbers(Sequence[str]):
    """Names of users by their numbers."""

    def __init__(self, n: int):
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, at: Any) -> Any:
        places = range(self._n)[at]
        return f"user {places}" if isinstance(places, int) else [f"user {i}" for i in places]


def _fingerprint(events: Events, like: InteractionsPreprocessor, labels: np.ndarray | None) -> str:
    """Of the users, items, times and labels of all events."""
    arrays = [events.users, events.items, *(a for a in (events.times, labels) if a is not None)]
    contents = [np.ascontiguousarray(array).view(np.uint8).data for array in arrays]
    names = "\0".join((*like.items, *events.user_names, *events.classes)).encode("utf-8", "surrogateescape")
    return fingerprint(len(events), [*contents, names])
