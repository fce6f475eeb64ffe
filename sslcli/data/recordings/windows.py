"""Divide recordings into windows of one length. No window is of two recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.errors import DataError, RequestError


class Windows(NamedTuple):
    """The windows of the recordings of one split."""

    x: Tensor  # (M, C, length) float32, padded with NaN
    origin: Tensor  # (M,) int64: the recording
    start: Tensor  # (M,) int64: the first step
    empty: int  # number of windows left out, because they hold no value


def check_options(layout: str, window: int | None, stride: int | None) -> None:
    if layout not in ("nct", "ntc"):
        raise RequestError(f"dataset.layout: expected nct or ntc, got {escape(layout)}", "dataset.layout=nct")
    for key, value, minimum in (("window", window, 2), ("stride", stride, 1)):
        if value is not None and value < minimum:
            raise RequestError(f"dataset.{key}: expected at least {minimum} steps, got {value}", f"dataset.{key}=128")
    if stride is not None and window is None:
        raise RequestError("dataset.stride requires dataset.window", "dataset.window=128")


def make_windows(
    recordings: Mapping[str, list[np.ndarray]], length: int, window: int | None, stride: int | None, path: str
) -> dict[str, Windows]:
    """The windows of each split. Raises DataError where a split holds no value."""
    windows = {}
    for part, values in recordings.items():
        x, origin, start = _cut(values, length, window, stride)
        keep = ~x.isnan().all(2).all(1)
        windows[part] = Windows(x[keep], origin[keep], start[keep], int((~keep).sum()))
        if not keep.any():
            raise DataError(f"no series of {escape(path)} ({part}) holds any value")
    return windows


def describe_windows(
    recordings: list[np.ndarray], x: Tensor, window: int | None, stride: int | None, layout: str, notes: list[str]
) -> None:
    """Add notes on number, length and missing values. `x`: (M, C, T), the windows of the recordings."""
    lengths = {r.shape[1] for r in recordings}
    steps = f"{min(lengths)}..{max(lengths)}" if len(lengths) > 1 else str(max(lengths))
    notes.append(f"{plural(len(recordings), 'series', 'series')} of {plural(x.shape[1], 'channel')} and {steps} steps")
    if window:
        notes.append(f"divided into {plural(len(x), 'window')} of {window} steps, one every {stride or window}")
    elif len(lengths) > 1:
        notes.append(
            f"padded with NaN to {x.shape[2]} steps; dataset.window=N divides them into windows of N steps instead"
        )
    if layout == "nct" and x.shape[1] > x.shape[2]:
        notes.append(
            f"warning: {x.shape[1]} channels of {x.shape[2]} steps: if the axes are (N, T, C), set dataset.layout=ntc"
        )
    absent = float(x.isnan().float().mean())
    if absent:
        notes.append(f"{absent:.1%} of the values are missing or padding (NaN)")


def _cut(
    recordings: list[np.ndarray], length: int, window: int | None, stride: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (M, C, length) float32 padded with NaN, and the recording and first step of each, (M,) int64."""
    pieces: list[tuple[int, int]] = []
    for i, r in enumerate(recordings):
        if window is None or r.shape[1] <= window:
            pieces.append((i, 0))
            continue
        starts = range(0, r.shape[1] - window + 1, stride or window)
        pieces += [(i, s) for s in starts]
        covered = starts[-1] + window
        if r.shape[1] - covered >= (window + 1) // 2:
            pieces.append((i, covered))
    out = torch.full((len(pieces), recordings[0].shape[0], length), float("nan"))
    for row, (i, s) in enumerate(pieces):
        part = torch.from_numpy(np.ascontiguousarray(recordings[i][:, s : s + length]))
        out[row, :, : part.shape[1]] = part
    origin, start = (torch.tensor(column, dtype=torch.int64) for column in zip(*pieces, strict=True))
    return out, origin, start
