"""Unreadable samples: replaced deterministically while training, left out of an evaluation, counted, and limited.

This holds for resident data and for data that workers decode. The replacement of a sample is a function of the seed and its
id; more unreadable samples than `dataset.max_bad_fraction` end the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sslcli.console import escape, plural
from sslcli.data import notify
from sslcli.data.dataset import Source
from sslcli.errors import DataError, listing
from sslcli.rng import derive

MAX_ATTEMPTS = 100  # replacements tried for one unreadable sample
MAX_REPORTED = 5  # unreadable samples reported one by one while training; later ones are only counted
INSPECT_HINT = "sslcli data inspect dataset=NAME dataset.path=PATH --strict lists all of them"


def read_or_replace(
    ids: Iterable[int], read: Callable[[int], Any], n: int, seed: int | None
) -> tuple[list[Any], list[int], dict[int, str]]:
    """Read the samples `ids` of `n`; returns the items, the ids they come from, and id -> reason of unreadable samples.

    `read` returns a string, the reason, for an unreadable sample. With a `seed` such a sample is replaced by another one;
    with None it is left out. Raises DataError where none of `MAX_ATTEMPTS` replacements can be read.
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
                    f"{MAX_ATTEMPTS} samples in a row cannot be read, the last one: {next(reversed(bad.values()))}",
                    INSPECT_HINT,
                )
    return items, used, bad


def _candidates(i: int, n: int, seed: int | None) -> Iterator[int]:
    yield i
    if seed is not None:
        for k in range(MAX_ATTEMPTS):
            yield derive(seed, "replace", i, k) % n


class BadSamples:
    """The unreadable samples of a source found so far, by id. `report`: log the first ones as they are found."""

    def __init__(self, source: Source, report: bool = False):
        self.source = source
        self.report = report and source.resident is None  # those of resident data are in the notes of the data set
        self.by_id: dict[int, tuple[str, str]] = {}

    @property
    def reasons(self) -> dict[int, str]:
        return {i: reason for i, (_, reason) in self.by_id.items()}

    def add(self, bad: Mapping[int, str]) -> None:
        """Add id -> reason. Raises DataError when the limit of the source is exceeded."""
        new = {i: (self.source.name_of(i), reason) for i, reason in bad.items() if i not in self.by_id}
        if not new:
            return
        if self.report:
            for name, reason in list(new.values())[: max(0, MAX_REPORTED - len(self.by_id))]:
                notify.log(f"warning: {escape(name)} cannot be read ({reason}): replaced by another sample in training")
        self.by_id |= new
        check_limit(dict(self.by_id.values()), len(self.source), self.source.max_bad_fraction)


def exceeds_limit(bad: int, n: int, fraction: float) -> bool:
    """Whether `bad` of `n` is more than ceil(fraction * n): one unreadable file of a small folder is tolerated."""
    return bad > math.ceil(fraction * n)


def check_limit(bad: Mapping[str, str], n: int, fraction: float) -> None:
    """Raises DataError where `bad` (name -> reason) holds more than the tolerated fraction of `n` samples."""
    if exceeds_limit(len(bad), n, fraction):
        sufficient = math.ceil(100 * len(bad) / n) / 100
        raise DataError(
            f"{len(bad):,} of {n:,} samples cannot be read, more than {fraction:.1%}: {format_examples(bad)}",
            f"{INSPECT_HINT}; dataset.max_bad_fraction={sufficient:g} tolerates them",
        )


def format_examples(bad: Mapping[str, str], at_most: int = 3) -> str:
    """`a.jpg (truncated), b.jpg (empty) and 4 more`."""
    return listing((f"{escape(name)} ({reason})" for name, reason in bad.items()), at_most)


def group_by_reason(bad: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason -> names, the most frequent reason first; reasons that differ in digits only are one."""
    groups: dict[str, list[str]] = {}
    for name, reason in bad.items():
        groups.setdefault(re.sub(r"\d[\d,.]*", "N", reason), []).append(name)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def unreadable_notes(bad: Mapping[str, str], absent: Mapping[str, str], checked: int | None = None) -> list[str]:
    """The notes about unreadable samples. `absent`: those of `bad` that are none of the samples, such as empty files. `checked`:
    how many samples were opened, where that was not all."""
    notes = []
    if absent:
        notes.append(f"warning: {plural(len(absent), 'unreadable sample')} left out: {format_examples(absent)}")
    if counted := {name: reason for name, reason in bad.items() if name not in absent}:
        of = "" if checked is None else f" of {checked:,} checked"
        effect = "counted, replaced by another sample in training, left out of evaluations"
        notes.append(f"warning: {plural(len(counted), 'unreadable sample')}{of}: {format_examples(counted)}; {effect}")
    return notes
