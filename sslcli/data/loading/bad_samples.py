"""Samples that cannot be read: what takes their place, how many are too many, and what is said.

The same for data in memory and data decoded by workers: a sample keeps its id, another one stands in for it while
training (which one is a function of the seed and the id), an evaluation leaves it out, and more than
`dataset.max_bad_fraction` of them end the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sslcli.console import plural
from sslcli.data import notify
from sslcli.data.dataset import Source
from sslcli.data.notify import shown
from sslcli.errors import DataError, listing
from sslcli.rng import derive

ATTEMPTS = 100  # other samples tried in place of an unreadable one
MAX_REPORTED = 5  # told one by one while training; the others are counted
INSPECT_HINT = "sslcli data inspect dataset=NAME dataset.path=PATH --strict lists them all"


def read_or_replace(
    ids: Iterable[int], read: Callable[[int], Any], n: int, seed: int | None
) -> tuple[list[Any], list[int], dict[int, str]]:
    """What `read` gives for each id, the ids that were used, and id -> reason of those that could not be read.

    `read` answers an unreadable sample with the reason, a string. `seed`: a stand-in is taken; None: it is left out.
    Raises DataError when no stand-in can be read either.
    """
    items, used, bad = [], [], {}
    for i in ids:
        for candidate in _candidates(i, n, seed):
            item = read(candidate)
            if not isinstance(item, str):
                items.append(item)
                used.append(candidate)
                break
            bad[candidate] = item
        else:
            if seed is not None:
                raise DataError(
                    f"{ATTEMPTS} samples in a row cannot be read, the last one: {next(reversed(bad.values()))}",
                    INSPECT_HINT,
                )
    return items, used, bad


def _candidates(i: int, n: int, seed: int | None) -> Iterator[int]:
    yield i
    if seed is not None:
        for k in range(ATTEMPTS):
            yield derive(seed, "replace", i, k) % n


class BadSamples:
    """The unreadable samples of a source that were met so far, by id, and the limit. `tell`: say the first ones at once."""

    def __init__(self, source: Source, tell: bool = False):
        self.source = source
        self.tell = tell and source.resident is None  # else it was said when all were read
        self.by_id: dict[int, tuple[str, str]] = {}

    @property
    def reasons(self) -> dict[int, str]:
        return {i: reason for i, (_, reason) in self.by_id.items()}

    def add(self, bad: Mapping[int, str]) -> None:
        """DataError when there are too many now."""
        new = {i: (self.source.name_of(i), reason) for i, reason in bad.items() if i not in self.by_id}
        if not new:
            return
        for name, reason in list(new.values())[: max(0, MAX_REPORTED - len(self.by_id))]:
            if self.tell:
                notify.log(f"warning: {shown(name)} cannot be read ({reason}); another sample takes its place")
        self.by_id |= new
        check_limit(dict(self.by_id.values()), len(self.source), self.source.max_bad_fraction)


def exceeds_limit(bad: int, n: int, fraction: float) -> bool:
    """More than ceil(fraction * n): one in a small folder is no reason to stop."""
    return bad > math.ceil(fraction * n)


def check_limit(bad: Mapping[str, str], n: int, fraction: float) -> None:
    """DataError when too many of `n` are in `bad` (name -> reason)."""
    if exceeds_limit(len(bad), n, fraction):
        enough = math.ceil(100 * len(bad) / n) / 100
        raise DataError(
            f"{len(bad):,} of {n:,} images cannot be read, more than {fraction:.1%}: {format_examples(bad)}",
            f"{INSPECT_HINT}; dataset.max_bad_fraction={enough:g} would go on without them",
        )


def format_examples(bad: Mapping[str, str], at_most: int = 3) -> str:
    """`a.jpg (truncated), b.jpg (empty) and 4 more`."""
    return listing((f"{shown(name)} ({reason})" for name, reason in bad.items()), at_most)


def group_by_reason(bad: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason -> names, the most frequent first; numbers in a reason do not make another one."""
    found: dict[str, list[str]] = {}
    for name, reason in bad.items():
        found.setdefault(re.sub(r"\d[\d,.]*", "N", reason), []).append(name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def unreadable_note(bad: Mapping[str, str], looked_at: int | None = None) -> str:
    """The line of the start screen. `looked_at`: how many were opened, when that was not all."""
    few = "" if looked_at is None else f" of {looked_at:,} looked at"
    return f"warning: {plural(len(bad), 'unreadable image')}{few} left out: {format_examples(bad)}"
