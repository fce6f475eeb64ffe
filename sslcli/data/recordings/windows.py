"""Divide recordings into windows of one length. No window is of two recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.storage import Dense, Storage, Windowed
from sslcli.errors import DataError, RequestError

LAZY_BYTES = 256 << 20  # of all windows: those that overlap are then made when they are read
BLOCK = 1 << 12  # windows at a time


class Windows(NamedTuple):
    """The windows of the recordings of one split."""

    x: Storage  # samples (C, length) float32, padded with NaN
    origin: Tensor  # (M,) int64: the recording
    start: Tensor  # (M,) int64: the first step
    empty: int  # number of windows left out, because they hold no value

    def spans(self, recordings: list[np.ndarray] | np.ndarray) -> Tensor:
        """(M, 3) int64: the recording of each window, its first step, and the number of its steps that are in the recording."""
        lengths = torch.tensor([r.shape[1] for r in recordings])
        steps = (lengths[self.origin] - self.start).clamp(max=int(self.x.sample_shape[1] or 0))
        return torch.stack([self.origin, self.start, steps], dim=1)


def check_options(layout: str, window: int | None, stride: int | None) -> None:
    if layout not in ("nct", "ntc"):
        raise RequestError(f"dataset.layout: expected nct or ntc, got {escape(layout)}", "dataset.layout=nct")
    for key, value, minimum in (("window", window, 2), ("stride", stride, 1)):
        if value is not None and value < minimum:
            raise RequestError(f"dataset.{key}: expected at least {minimum} steps, got {value}", f"dataset.{key}=128")
    if stride is not None and window is None:
        raise RequestError("dataset.stride requires dataset.window", "dataset.window=128")


def make_windows(
    recordings: Mapping[str, list[np.ndarray] | np.ndarray],
    length: int,
    window: int | None,
    stride: int | None,
    path: str,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Windows]:
    """The windows of each split. Raises DataError where a split holds no value.

    finish: applied to samples (n, C, length). Many windows that overlap are made when they are read: see `Windowed`."""
    windows = {}
    for part, values in recordings.items():
        origin, start = _places(values, window, stride)
        x: Storage
        if _overlap(values, len(start), length):
            x, known = _overlapping(values, origin, start, length, finish)
        else:
            dense = _cut(values, origin, start, length)
            known = torch.cat([~block.isnan().all(2).all(1) for block in dense.split(BLOCK)])
            x = Dense(dense if finish is None else finish(dense))
        if not known.any():
            raise DataError(f"no series of {escape(path)} ({part}) holds any value")
        if not known.all():
            keep = torch.nonzero(known).flatten()
            x, origin, start = x.select(keep), origin[keep], start[keep]
        windows[part] = Windows(x, origin, start, int((~known).sum()))
    return windows


def describe_windows(
    recordings: list[np.ndarray] | np.ndarray,
    x: Storage,
    window: int | None,
    stride: int | None,
    layout: str,
    notes: list[str],
) -> None:
    """Add notes on number, length and missing values. `x`: the windows of the recordings."""
    channels, length = (int(n or 0) for n in x.sample_shape)
    lengths = {r.shape[1] for r in recordings}
    steps = f"{min(lengths)}..{max(lengths)}" if len(lengths) > 1 else str(max(lengths))
    notes.append(f"{plural(len(recordings), 'series', 'series')} of {plural(channels, 'channel')} and {steps} steps")
    if window:
        notes.append(f"divided into {plural(len(x), 'window')} of {window} steps, one every {stride or window}")
    elif len(lengths) > 1:
        notes.append(
            f"padded with NaN to {length} steps; dataset.window=N divides them into windows of N steps instead"
        )
    if layout == "nct" and channels > length:
        notes.append(
            f"warning: {channels} channels of {length} steps: if the axes are (N, T, C), set dataset.layout=ntc"
        )
    absent = _missing(x) / max(1, len(x) * channels * length)
    if absent:
        notes.append(f"{absent:.1%} of the values are missing or padding (NaN)")


def _places(recordings: list[np.ndarray] | np.ndarray, window: int | None, stride: int | None) -> tuple[Tensor, Tensor]:
    """The recording and the first step of each window, (M,) int64."""
    starts = []
    for r in recordings:
        steps = r.shape[1]
        if window is None or steps <= window:
            starts.append(torch.zeros(1, dtype=torch.int64))
            continue
        first = torch.arange(0, steps - window + 1, stride or window)
        covered = int(first[-1]) + window
        rest = [covered] if steps - covered >= (window + 1) // 2 else []
        starts.append(torch.cat([first, torch.tensor(rest, dtype=torch.int64)]))
    origin = torch.arange(len(recordings)).repeat_interleave(torch.tensor([len(s) for s in starts]))
    return origin, torch.cat(starts)


def _overlap(recordings: list[np.ndarray] | np.ndarray, count: int, length: int) -> bool:
    """Whether windows are made when they are read: together they would be large, and far larger than the recordings."""
    steps = sum(r.shape[1] for r in recordings)
    return count * length > 2 * steps and 4 * count * length * recordings[0].shape[0] > LAZY_BYTES


def _overlapping(
    recordings: list[np.ndarray] | np.ndarray,
    origin: Tensor,
    start: Tensor,
    length: int,
    finish: Callable[[Tensor], Tensor] | None,
) -> tuple[Windowed, Tensor]:
    """The windows, and which of them (M,) hold a value."""
    flat = torch.from_numpy(np.ascontiguousarray(np.concatenate([r.T for r in recordings])))
    offsets = torch.tensor([0, *(r.shape[1] for r in recordings)]).cumsum(0)
    starts, ends = offsets[origin] + start, offsets[origin + 1]
    before = torch.cat([torch.zeros(1, dtype=torch.int64), (~flat.isnan().all(dim=1)).cumsum(0)])
    known = before[(starts + length).minimum(ends)] > before[starts]
    return Windowed(flat, starts, ends, length, finish), known


def _cut(recordings: list[np.ndarray] | np.ndarray, origin: Tensor, start: Tensor, length: int) -> Tensor:
    """Windows (M, C, length) float32, padded with NaN. Of an array (N, C, length) of whole samples, the array itself."""
    if isinstance(recordings, np.ndarray) and recordings.shape[2] == length and len(origin) == len(recordings):
        return torch.from_numpy(np.ascontiguousarray(recordings))
    out = torch.full((len(origin), recordings[0].shape[0], length), float("nan"))
    for row, (i, s) in enumerate(zip(origin.tolist(), start.tolist(), strict=True)):
        part = torch.from_numpy(np.ascontiguousarray(recordings[i][:, s : s + length]))
        out[row, :, : part.shape[1]] = part
    return out


def covered_steps(x: Storage) -> Tensor:
    """The values (n, C, T) of samples for statistics; of windows that overlap each step that is in one, once, as (1, C, total)."""
    if isinstance(x, Dense):
        return x.tensor
    assert isinstance(x, Windowed), type(x)
    change = torch.zeros(len(x.flat) + 1, dtype=torch.int64)
    change.index_add_(0, x.starts, torch.ones_like(x.starts))
    change.index_add_(0, (x.starts + x.length).minimum(x.ends), -torch.ones_like(x.starts))
    inside = change[:-1].cumsum(0) > 0
    return (x.flat if bool(inside.all()) else x.flat[inside]).T[None]


def _missing(x: Storage) -> int:
    """How many values of the samples are missing or padding."""
    if isinstance(x, Dense):
        return sum(int(block.isnan().sum()) for block in x.tensor.split(BLOCK))
    assert isinstance(x, Windowed), type(x)
    ends = (x.starts + x.length).minimum(x.ends)
    before = torch.cat([torch.zeros(1, dtype=torch.int64), x.flat.isnan().sum(dim=1).cumsum(0)])
    beyond = x.length - (ends - x.starts)
    return int((before[ends] - before[x.starts] + beyond * x.flat.shape[1]).sum())


def stored_tensors(x: Storage) -> list[Tensor]:
    """What identifies the samples."""
    if isinstance(x, Dense):
        return [x.tensor]
    assert isinstance(x, Windowed), type(x)
    return [x.flat, x.starts]


def as_bytes(x: Tensor) -> bytes | memoryview:
    """The values of a tensor, without a copy where they are in order."""
    return x.contiguous().numpy().data.cast("B") if x.numel() else b""
