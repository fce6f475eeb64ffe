"""Divisions of events into training, validation and test: by the place in a history, or by one date for all users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.histories.events import Events
from sslcli.data.recordings.table import parse_times
from sslcli.errors import DataError, RequestError

SPLITS = ("last", "time", "none")
SHARES = (0.8, 0.9)  # of all events, which end with training and with validation
HINT = "dataset.split=last takes the last item of each user"

Division = tuple[
    np.ndarray, np.ndarray, np.ndarray, str
]  # training events, places of validation and test (U,), the rule


def divide(events: Events, split: str, dates: Sequence[Any] | None, notes: list[str]) -> Division:
    """How many events of each user are for training, the places of the items to predict, -1 for none, and the rule in words.

    RequestError for options, DataError where nothing can be predicted."""
    if split not in SPLITS:
        raise RequestError(f"dataset.split: expected one of {', '.join(SPLITS)}, got {escape(str(split))}", HINT)
    if dates is not None and split != "time":
        raise RequestError("dataset.dates has no effect without dataset.split=time", "dataset.dates=null")
    counts = np.bincount(events.users, minlength=len(events.user_names)).astype(np.int64)
    if split == "none":
        none = np.full(len(counts), -1, np.int64)
        return counts, none, none, "all events are for training"
    train, val, test, rule = by_place(counts) if split == "last" else by_time(events, counts, dates)
    if not (test >= 0).any():
        raise DataError(f"no user has an item to predict ({rule})", "dataset.split=none uses all events for training")
    few = int((counts < 2).sum())
    if few:
        notes.append(f"{plural(few, 'user')} of {len(counts):,} with one event: nothing of them can be predicted")
    notes.append(
        f"{rule}: {int((test >= 0).sum()):,} users have an item to predict, {int((val >= 0).sum()):,} one for validation"
    )
    return train, val, test, rule


def by_place(counts: np.ndarray) -> Division:
    """The last item of a user is the test, the one before it validation, all others are for training; of two events the first is
    for training."""
    test = np.where(counts >= 2, counts - 1, -1)
    val = np.where(counts >= 3, counts - 2, -1)
    return np.maximum(counts - 2, 1), val, test, "the last item of each user is the test, the one before it validation"


def by_time(events: Events, counts: np.ndarray, dates: Sequence[Any] | None) -> Division:
    """Events up to a first date are for training. Of each user with events after it the last one up to a second date is validation,
    and the last one of all after that date is the test; its history has all events before it."""
    if events.times is None:
        raise RequestError("dataset.split=time requires a column of times", HINT)
    first, second = _dates(events.times, dates)
    users = len(counts)
    train = np.bincount(events.users[events.times <= first], minlength=users).astype(np.int64)
    until = np.bincount(events.users[events.times <= second], minlength=users).astype(np.int64)
    val = np.where((until > train) & (until > 1), until - 1, -1)
    test = np.where((counts > until) & (counts > 1), counts - 1, -1)
    if not train.any():
        raise DataError("dataset.split=time: no event is for training", "dataset.dates=[FIRST,SECOND] with later dates")
    rule = f"events up to {_text(first)} are for training, up to {_text(second)} validation, later ones the test"
    return train, val, test, rule


def _dates(times: np.ndarray, dates: Sequence[Any] | None) -> tuple[float, float]:
    """The two dates; of none, those that end 80 and 90 % of all events."""
    if dates is None:
        at = np.sort(times)
        first, second = (float(at[max(0, int(share * len(at)) - 1)]) for share in SHARES)
        return first, second
    if len(dates) != 2:
        raise RequestError(
            f"dataset.dates: expected two dates, got {len(dates)}", "dataset.dates=[2021-01-01,2021-02-01]"
        )
    cells = np.array([str(date) for date in dates])
    try:
        first, second = parse_times(cells, np.array([1, 2]), "dates", "dataset.dates").tolist()
    except DataError as error:
        raise RequestError(error.message, "dataset.dates=[2021-01-01,2021-02-01]") from None
    if first > second:
        raise RequestError("dataset.dates: the first date is after the second", "dataset.dates=[2021-01-01,2021-02-01]")
    return first, second


def _text(time: float) -> str:
    """A time in seconds since 1970 as a date, others as they are."""
    if 1e8 < time < 1e11:
        return str(np.datetime64(int(time), "s")).replace("T", " ")
    return f"{time:g}"
