"""Held-out splits: a pure function of the labels or groups, the held-out fraction and `split_seed`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.errors import DataError, RequestError
from sslcli.rng import derive, order

AUTO_FRACTION = 0.2  # held out by `dataset.holdout=auto`
NOTHING_HELD_OUT = "nothing is held out (dataset.holdout=0.2 holds out a fifth)"


def holdout_fraction(holdout: float | str, labels: Tensor | None) -> float:
    """The fraction of samples that `dataset.holdout` holds out: `auto` is a fifth where there are labels of two classes or
    more, else 0. Raises RequestError for anything but `auto` and a number in [0, 1)."""
    if holdout == "auto":
        return AUTO_FRACTION if labels is not None and len(labels[labels >= 0].unique()) > 1 else 0.0
    if isinstance(holdout, str) or not 0 <= holdout < 1:
        raise RequestError(
            f"dataset.holdout: expected auto or a fraction of at least 0 and below 1, got {holdout}",
            "dataset.holdout=0.2",
        )
    return float(holdout)


def split(
    n: int,
    holdout: float | str,
    seed: int = 0,
    labels: Tensor | None = None,
    groups: Sequence[object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Ids of the training and the held-out samples, both sorted, (m,) int64.

    The split is by group where `groups` are given (a group is never divided); else stratified by label where there are labels
    (samples without one, -1, stay in train); else at random. A fraction of 0 holds nothing out; otherwise
    ceil(fraction * n) samples are held out, or with groups the nearest possible number. With `auto` only labeled samples
    count.

    Raises RequestError for a fraction outside [0, 1), DataError where there is only one group.
    """
    fraction = holdout_fraction(holdout, labels)
    everything = torch.arange(n)
    if fraction == 0 or n < 2:
        return everything, everything[:0]
    if groups is not None:
        counted = labels >= 0 if holdout == "auto" and labels is not None else torch.ones(n, dtype=torch.bool)
        held_out = _by_group(groups, fraction, seed, labels, counted)
    elif labels is not None and bool((labels >= 0).any()):
        held_out = _stratified(labels, fraction, seed)
    else:
        held_out = torch.zeros(n, dtype=torch.bool)
        held_out[order(derive(seed, "split"), 0, n)[: min(math.ceil(fraction * n), n - 1)]] = True
    return everything[~held_out], everything[held_out]


def split_recordings(
    recording: Tensor, starts: Tensor, window: int, holdout: float | str, seed: int = 0, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, str]:
    """Training ids, held-out ids and the rule, for windows (n,) of recordings.

    Whole recordings are held out, the same ones for every window length. A single recording is divided in time: its end is
    held out, and a gap of one window before it is in neither part."""
    ids, first = recording.unique(return_inverse=True)
    if len(ids) > 1:
        of = torch.full((len(ids),), -1)
        if labels is not None:
            of[first] = labels  # all windows of a recording have the same label
        _, held_out = split(len(ids), holdout, seed, of if labels is not None else None)
        inside = torch.isin(first, held_out)
        return torch.nonzero(~inside).flatten(), torch.nonzero(inside).flatten(), "whole recordings"
    fraction = holdout_fraction(holdout, labels)
    everything = torch.arange(len(recording))
    if fraction == 0 or len(recording) < 2:
        return everything, everything[:0], ""
    length = int(starts.max()) + window
    held_out = starts >= min((1 - fraction) * length, int(starts.max()))
    begins = int(starts[held_out].min())
    in_train = starts + 2 * window <= begins
    if not bool(in_train.any()):
        raise DataError(
            f"one recording of {length:,} steps is too short to hold out {fraction:g} of it after a gap of one window ({window})",
            "dataset.holdout=0, or a smaller dataset.window",
        )
    gap = int((~in_train & ~held_out).sum())
    how = f"the end of the only recording; {gap} before it are left out as a gap of one window"
    return everything[in_train], everything[held_out], how


def split_hash(held_out: Tensor) -> str:
    """16 hex digits that identify the held-out ids; "" where none are held out."""
    return hashlib.sha256(held_out.numpy().tobytes()).hexdigest()[:16] if len(held_out) else ""


def _stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Mask of the held-out samples: the same fraction of each class, rounded by largest remainder so that the total is exact;
    each class keeps at least one sample in train."""
    shuffled = order(derive(seed, "split"), 0, len(labels))
    members = {int(c): shuffled[labels[shuffled] == c] for c in labels[labels >= 0].unique()}
    exact = {c: fraction * len(ids) for c, ids in members.items()}
    take = {c: min(math.floor(x), len(members[c]) - 1) for c, x in exact.items()}
    missing = math.ceil(sum(exact.values()) - 1e-9) - sum(take.values())
    for c in sorted(exact, key=lambda c: (math.floor(exact[c]) - exact[c], c))[: max(missing, 0)]:
        take[c] = min(take[c] + 1, len(members[c]) - 1)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for c, ids in members.items():
        held_out[ids[: take[c]]] = True
    return held_out


def _by_group(groups: Sequence[object], fraction: float, seed: int, labels: Tensor | None, counted: Tensor) -> Tensor:
    """Mask of the held-out samples: of 64 random orders of the groups, the prefix that misses the fewest classes, then the
    one nearest to the requested size. `counted`: which samples count for the size."""
    names = sorted(set(groups), key=str)
    if len(names) < 2:
        raise DataError(
            f"all samples belong to one group ({names[0] if names else 'none'}): a split by group requires two or more",
            "dataset.holdout=0, or another dataset.group",
        )
    index = {g: i for i, g in enumerate(names)}
    of = torch.tensor([index[g] for g in groups])
    sizes = torch.bincount(of[counted], minlength=len(names))
    target = fraction * int(counted.sum())
    classes = set(labels[labels >= 0].tolist()) if labels is not None else set()
    best: tuple[tuple[float, ...], Tensor] | None = None
    for attempt in range(64):
        shuffled = order(derive(seed, "split by group"), attempt, len(names))
        totals = sizes[shuffled].cumsum(0)[:-1]  # at least one group stays in train
        k = int((totals - target).abs().argmin()) + 1
        held_out = torch.isin(of, shuffled[:k])
        missed = [
            len(classes - set(labels[part].tolist())) if labels is not None else 0 for part in (~held_out, held_out)
        ]
        score = (missed[0], missed[1], abs(float(totals[k - 1]) - target), attempt)
        if best is None or score < best[0]:
            best = (score, held_out)
    assert best is not None
    return best[1]
