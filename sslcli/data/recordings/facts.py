"""What can be said of recordings before anything is trained: lengths, gaps, constant channels, and whether they are normalized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslcli.console import escape, plural
from sslcli.errors import listing

NORMALIZED = 0.99  # of the channels of recordings: then a file is called z-normalized
DEVIATION = 0.02  # of a mean from 0, and of a standard deviation from 1
LOOKED_AT = 10_000  # recordings


def describe(recordings: list[np.ndarray] | np.ndarray, channels: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """Notes on the training recordings (C, T), and the same for programs."""
    lengths = [r.shape[1] for r in recordings]
    seen = recordings[:: max(1, len(recordings) // LOOKED_AT)]
    stats = [_stats(r) for r in seen]
    means, stds, gaps = (np.stack([s[i] for s in stats]) for i in range(3))  # (n, C)
    known = ~np.isnan(means)
    constant = known & (stds <= 1e-6 * np.maximum(np.abs(means), 1e-30))
    standard = (np.abs(means) < DEVIATION) & (np.abs(stds - 1) < DEVIATION)
    normalized = bool(known.any()) and float((standard | constant)[known].mean()) >= NORMALIZED and bool(standard.any())
    notes = []
    names = [escape(channels[c]) if c < len(channels) else f"channel {c}" for c in range(means.shape[1])]
    if channels:
        notes.append(f"channels: {listing(map(escape, channels), 8)}")
    if (single := sum(n < 2 for n in lengths)) and single < len(lengths):
        notes.append(f"warning: {plural(single, 'recording')} of a single step")
    if within := int((gaps > 0).any(axis=1).sum()):
        longest = int(gaps.max())
        notes.append(f"{plural(within, 'recording')} with gaps inside, the longest of {plural(longest, 'step')}")
    if empty := [names[c] for c in range(len(names)) if not known[:, c].any()]:
        notes.append(f"warning: {listing(empty, 4)} without any value")
    partly = [names[c] for c in range(len(names)) if constant[:, c].any() and not constant[:, c].all()]
    if partly:
        count = int(constant.any(axis=1).sum())
        notes.append(f"{plural(count, 'recording')} with a constant channel: {listing(partly, 4)}")
    if normalized:
        notes.append("each series is z-normalized already: its level and scale are not in the file")
    facts: dict[str, object] = {
        "lengths": [min(lengths), int(np.median(lengths)), max(lengths)],
        "with_gaps": within,
        "constant_channels": [names[c] for c in range(len(names)) if constant[:, c].any()],
        "z_normalized": normalized,
    }
    return notes, facts


def _stats(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and longest gap inside, in steps, of each channel (C,); NaN where it has no value."""
    missing = np.isnan(r)
    if not missing.any():
        return r.mean(axis=1, dtype=np.float64), r.std(axis=1, dtype=np.float64), np.zeros(len(r))
    count = (~missing).sum(axis=1)
    filled = np.where(missing, 0.0, r)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=1) / count
        std = np.sqrt((np.where(missing, 0.0, r - mean[:, None]) ** 2).sum(axis=1) / count)
    return mean, std, np.array([_longest_gap(row) for row in missing], np.float64)


def _longest_gap(missing: np.ndarray) -> int:
    places = np.flatnonzero(~missing)
    return int(np.diff(places).max()) - 1 if len(places) > 1 else 0
