"""Which events count: filters by rating and by the number of events, and their order in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.histories.events import Events
from sslcli.errors import DataError, RequestError, listing

LISTED = 3  # users of a note


def select_events(events: Events, min_rating: float | None, core: int, notes: list[str]) -> Events:
    """The events that count, grouped by user, each user's in the order of time; the order of the file breaks ties.

    Left out, and counted in `notes`: events without a user or an item, those with a rating below `min_rating` or without one,
    repetitions of an event (the same user, item and time), then users and items with fewer than `core` events, until all others
    have as many. DataError where nothing is left."""
    if core < 1:
        raise RequestError(f"dataset.core: expected an integer of at least 1, got {core}", "dataset.core=5")
    total = len(events)
    known = (events.users >= 0) & (events.items >= 0)
    if n := total - int(known.sum()):
        notes.append(f"warning: {plural(n, 'event')} without a user or an item left out")
    if min_rating is not None and events.ratings is not None:
        enough = events.ratings >= min_rating
        if n := int((known & ~enough).sum()):
            notes.append(f"{plural(n, 'event')} with a rating below {min_rating:g}, or without one, left out")
        known &= enough
    events = in_time(events.select(known))
    if events.times is not None and len(events):
        first = first_of_each(events)
        if n := len(events) - int(first.sum()):
            notes.append(f"{plural(n, 'repeated event')} (the same user, item and time) left out")
        events = events.select(first)
    kept = core_mask(events.users, events.items, core)
    if n := len(events) - int(kept.sum()):
        notes.append(f"{plural(n, 'event')} of users or items with fewer than {core} events left out")
    events = events.select(kept)
    if not len(events):
        raise DataError(f"none of {plural(total, 'event')} is left", "dataset.min_rating=null dataset.core=1 keeps all")
    return events


def in_time(events: Events) -> Events:
    """Sorted by user, then by time; a stable sort."""
    keys = (events.users,) if events.times is None else (events.times, events.users)
    return events.select(np.lexsort(keys))


def first_of_each(events: Events) -> np.ndarray:
    """(n,) bool: the first one of equal events, which are sorted by user and time."""
    assert events.times is not None
    order = np.lexsort((events.items, events.times, events.users))
    same = np.ones(len(order) - 1, bool)
    for values in (events.users, events.times, events.items):
        same &= values[order][1:] == values[order][:-1]
    first = np.ones(len(order), bool)
    first[order[1:][same]] = False
    return first


def core_mask(users: np.ndarray, items: np.ndarray, core: int) -> np.ndarray:
    """(n,) bool: the largest set of events in which each user and each item has at least `core` of them."""
    kept = np.ones(len(users), bool)
    while core > 1 and kept.any():
        enough = kept.copy()
        for codes in (users, items):
            enough &= np.bincount(codes[kept], minlength=int(codes.max()) + 1)[codes] >= core
        if enough.sum() == kept.sum():
            break
        kept = enough
    return kept


def compress(events: Events) -> Events:
    """With codes of the users and items that have events: users in the order of the file, items sorted by name, numbers first."""
    users, user_codes = np.unique(events.users, return_inverse=True)
    items, item_codes = np.unique(events.items, return_inverse=True)
    names = [events.item_names[i] for i in items.tolist()]
    order = sorted(range(len(names)), key=lambda i: _by_number(names[i]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return replace(
        events,
        users=user_codes.astype(np.int32),
        items=place[item_codes].astype(np.int32),
        user_names=[events.user_names[i] for i in users.tolist()],
        item_names=[names[i] for i in order],
    )


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() and len(name) < 19 else (1, 0, name)


def recode_items(events: Events, known: list[str], notes: list[str]) -> Events:
    """With the codes of the items `known`; events of others, and users without any of them, are left out and counted. DataError
    where none is left."""
    index = {name: i for i, name in enumerate(known)}
    table = np.array([*(index.get(name, -1) for name in events.item_names), -1], np.int32)
    codes = table[events.items]
    unknown = codes < 0
    if n := int(unknown.sum()):
        items = int((table[:-1] < 0).sum())
        notes.append(
            f"warning: {plural(n, 'event')} of {plural(items, 'item')} that the encoder does not know left out"
        )
    if unknown.all():
        shown = ", ".join(map(escape, events.item_names[:3]))
        raise DataError(
            f"the encoder knows none of the items ({shown})", "use data of the items that it was trained on"
        )
    out = replace(events, items=codes, item_names=list(known)).select(~unknown)
    users, user_codes = np.unique(out.users, return_inverse=True)
    lost = np.setdiff1d(events.users, users)
    if len(lost):
        shown = listing([escape(events.user_names[i]) for i in lost.tolist()], LISTED)
        notes.append(f"warning: {plural(len(lost), 'user')} without an item that the encoder knows left out: {shown}")
    return replace(out, users=user_codes.astype(np.int32), user_names=[events.user_names[i] for i in users.tolist()])


def labels_of_users(events: Events) -> np.ndarray | None:
    """(U,) int64: the label of each user, -1 for none. DataError where a user has two."""
    if events.labels is None:
        return None
    out = np.full(len(events.user_names), -1, np.int64)
    known = events.labels >= 0
    out[events.users[known]] = events.labels[known]
    differ = known & (out[events.users] != events.labels)
    if differ.any():
        user = int(events.users[differ.argmax()])
        raise DataError(
            f"the user {escape(events.user_names[user])} has several labels: a label is of a user, the same in all events",
            "dataset.label=none",
        )
    return out
