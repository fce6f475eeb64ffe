"""Held-out splits: a pure function of the labels or groups, the fraction and `split_seed`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.errors import DataError, RequestError
from sslcli.rng import derive, order


def split(
    n: int,
    fraction: float,
    seed: int = 0,
    labels: Tensor | None = None,
    groups: Sequence[object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Ids of the training and the held-out samples, both sorted, (m,) int64.

    By group where `groups` are given (a group is never divided); else stratified by label where there are labels
    (samples without one, -1, stay in train); else at random. `fraction` 0 holds nothing out. ceil(fraction * n) are
    held out.

    Raises RequestError for a fraction outside [0, 1), DataError where groups cannot be divided.
    """
    if not 0 <= fraction < 1:
        raise RequestError(
            f"dataset.holdout is {fraction}, but it is a share of the samples from 0 to below 1", "dataset.holdout=0.2"
        )
    everything = torch.arange(n)
    if fraction == 0 or n < 2:
        return everything, everything[:0]
    if groups is not None:
        held = _by_group(groups, fraction, seed, labels)
    elif labels is not None and bool((labels >= 0).any()):
        held = _stratified(labels, fraction, seed)
    else:
        held = torch.zeros(n, dtype=torch.bool)
        held[order(derive(seed, "split"), 0, n)[: min(math.ceil(fraction * n), n - 1)]] = True
    return everything[~held], everything[held]


def split_hash(held: Tensor) -> str:
    """16 hex digits that say which samples are held out; "" where none are."""
    return hashlib.sha256(held.numpy().tobytes()).hexdigest()[:16] if len(held) else ""


def _stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Each class gives its share, rounded by largest remainder so that the total is right; each keeps one in train."""
    shuffled = order(derive(seed, "split"), 0, len(labels))
    members = {int(c): shuffled[labels[shuffled] == c] for c in labels[labels >= 0].unique()}
    exact = {c: fraction * len(ids) for c, ids in members.items()}
    take = {c: min(math.floor(x), len(members[c]) - 1) for c, x in exact.items()}
    missing = math.ceil(sum(exact.values()) - 1e-9) - sum(take.values())
    for c in sorted(exact, key=lambda c: (math.floor(exact[c]) - exact[c], c))[: max(missing, 0)]:
        take[c] = min(take[c] + 1, len(members[c]) - 1)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c, ids in members.items():
        held[ids[: take[c]]] = True
    return held


def _by_group(groups: Sequence[object], fraction: float, seed: int, labels: Tensor | None) -> Tensor:
    """Of 64 random orders of the groups, the prefix that leaves the fewest classes out and is nearest in size."""
    names = sorted(set(groups), key=str)
    if len(names) < 2:
        raise DataError(
            f"all samples belong to one group ({names[0] if names else 'none'}), so none can be held out by group",
            "dataset.holdout=0, or another dataset.group",
        )
    index = {g: i for i, g in enumerate(names)}
    of = torch.tensor([index[g] for g in groups])
    sizes = torch.bincount(of, minlength=len(names))
    target = fraction * len(of)
    classes = set(labels[labels >= 0].tolist()) if labels is not None else set()
    best: tuple[tuple[float, ...], Tensor] | None = None
    for attempt in range(64):
        shuffled = order(derive(seed, "split by group"), attempt, len(names))
        totals = sizes[shuffled].cumsum(0)[:-1]  # at least one group stays in train
        k = int((totals - target).abs().argmin()) + 1
        held = torch.isin(of, shuffled[:k])
        lost = [len(classes - set(labels[part].tolist())) if labels is not None else 0 for part in (~held, held)]
        score = (lost[0], lost[1], abs(float(totals[k - 1]) - target), attempt)
        if best is None or score < best[0]:
            best = (score, held)
    assert best is not None
    return best[1]
