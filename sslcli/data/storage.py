"""Raw samples in memory: one tensor where all have one shape, or one after another where their lengths differ.

A batch is a gather on the device of the storage. Nothing in it synchronizes with the device or depends on the values of the ids, so
that a CUDA graph records it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor


class Storage(ABC):
    """n raw samples."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int | None, ...]:
        """The shape of one sample; None for a length that differs."""

    @abstractmethod
    def __getitem__(self, index: int) -> Tensor:
        """One sample, without copying it."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same samples on another device."""

    @abstractmethod
    def select(self, ids: Tensor) -> Self:
        """A copy of the samples `ids` (m,) int64, in that order."""

    @abstractmethod
    def narrow(self, start: int, stop: int) -> Self:
        """The samples start..stop - 1, without copying them."""

    @abstractmethod
    def concat(self, other: Self) -> Self:
        """These samples, then those of `other`."""

    @abstractmethod
    def take(self, ids: Tensor) -> Tensor:
        """The samples `ids` (B,) as one tensor (B, ...)."""

    @abstractmethod
    def batch(self, ids: Tensor, device: torch.device) -> Any:
        """The samples `ids` (B,) on `device`, as the views of the modality take them."""


class Dense(Storage):
    """Samples of one shape: a tensor (n, ...)."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[1:])

    def __getitem__(self, index: int) -> Tensor:
        return self.tensor[index]

    def to(self, device: torch.device) -> Dense:
        return Dense(self.tensor.contiguous().to(device))

    def select(self, ids: Tensor) -> Dense:
        return Dense(self.tensor[ids])

    def narrow(self, start: int, stop: int) -> Dense:
        return Dense(self.tensor[start:stop])

    def concat(self, other: Dense) -> Dense:
        return Dense(torch.cat([self.tensor, other.tensor]))

    def take(self, ids: Tensor) -> Tensor:
        return self.tensor[ids]

    def batch(self, ids: Tensor, device: torch.device) -> Tensor:
        return self.tensor[ids.to(self.device)].to(device)


COPIED = 512  # steps of a part from which it is copied as one on a CPU


class Ragged(Storage):
    """Samples of different lengths, one after another: sample i is `flat[offsets[i] : offsets[i + 1]]`.

    flat: (total, ...). offsets: (n + 1,) int64, not decreasing, on the device of `flat`; they may start above 0.
    fill: the value after the end of a sample in a tensor of several."""

    def __init__(self, flat: Tensor, offsets: Tensor, fill: float = 0):
        assert offsets.dtype == torch.int64, offsets.dtype
        assert offsets.device == flat.device, (offsets.device, flat.device)
        self.flat, self.offsets, self.fill = flat, offsets, fill
        self._longest: int | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.flat, self.offsets))

    @property
    def device(self) -> torch.device:
        return self.flat.device

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        return (None, *self.flat.shape[1:])

    @property
    def lengths(self) -> Tensor:
        """(n,) int64"""
        return self.offsets.diff()

    @property
    def longest(self) -> int:
        """The length of the longest sample."""
        if self._longest is None:
            self._longest = int(self.lengths.max()) if len(self) else 0
        return self._longest

    def __getitem__(self, index: int) -> Tensor:
        return self.flat[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def to(self, device: torch.device) -> Ragged:
        out = Ragged(self.flat.contiguous().to(device), self.offsets.to(device), self.fill)
        out._longest = self._longest
        return out

    def select(self, ids: Tensor) -> Ragged:
        ids = ids.to(self.device)
        lengths = self.lengths[ids]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shift = (self.offsets[ids] - offsets[:-1]).repeat_interleave(lengths)
        return Ragged(self.flat[torch.arange(len(shift), device=self.device) + shift], offsets, self.fill)

    def narrow(self, start: int, stop: int) -> Ragged:
        return Ragged(self.flat, self.offsets[start : stop + 1], self.fill)

    def concat(self, other: Ragged) -> Ragged:
        begin, end = (int(other.offsets[i]) for i in (0, -1))
        first = self.flat[: int(self.offsets[-1])]
        offsets = torch.cat([self.offsets, other.offsets[1:] + (len(first) - begin)])
        return Ragged(torch.cat([first, other.flat[begin:end]]), offsets, self.fill)

    def take(self, ids: Tensor) -> Tensor:
        """(B, longest, ...), filled after the end of each sample."""
        return self.gather(ids, torch.zeros_like(ids), self.longest, self.fill)

    def gather(self, ids: Tensor, start: Tensor, length: int, fill: float) -> Tensor:
        """Steps start..start + length - 1 of the samples `ids`: (B, length, ...), with `fill` where a sample has no step.

        ids, start: (B,) int64 on the device of the storage; a start may be negative."""
        if self.device.type == "cpu" and length >= COPIED:
            return self._copy_parts(ids, start, length, fill)
        steps = start[:, None] + torch.arange(length, device=self.device)
        inside = (steps >= 0) & (steps < (self.offsets[ids + 1] - self.offsets[ids])[:, None])
        inside = inside.view(*inside.shape, *[1] * (self.flat.dim() - 1))
        if not len(self.flat):
            return self.flat.new_full((len(ids), length, *self.flat.shape[1:]), fill)
        places = (self.offsets[ids][:, None] + steps).clamp_(0, len(self.flat) - 1)
        return self.flat[places].masked_fill_(~inside, fill)

    def _copy_parts(self, ids: Tensor, start: Tensor, length: int, fill: float) -> Tensor:
        """`gather` by a copy for each sample, which is faster than an index for each step where parts are long."""
        out = self.flat.new_full((len(ids), length, *self.flat.shape[1:]), fill)
        begin, steps = self.offsets[ids], self.offsets[ids + 1] - self.offsets[ids]
        first, last = start.clamp(min=0), torch.minimum(start + length, steps)
        to, source, count = (x.tolist() for x in (first - start, begin + first, last - first))
        for row, a, b, n in zip(out, to, source, count, strict=True):
            if n > 0:
                row[a : a + n] = self.flat[b : b + n]
        return out

    def batch(self, ids: Tensor, device: torch.device) -> RaggedBatch:
        ids = ids.to(self.device)
        if self.device == device:
            return RaggedBatch(self, ids)
        return RaggedBatch(self.select(ids).to(device), torch.arange(len(ids), device=device))


class RaggedBatch:
    """The samples `ids` (B,) of a storage. Each view cuts its own part of them."""

    def __init__(self, storage: Ragged, ids: Tensor):
        self.storage, self.ids = storage, ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.storage.device

    @property
    def lengths(self) -> Tensor:
        """(B,) int64"""
        return self.storage.offsets[self.ids + 1] - self.storage.offsets[self.ids]

    def gather(self, start: Tensor, length: int, fill: float | None = None) -> Tensor:
        """(B, length, ...); see `Ragged.gather`. `fill`: None for that of the storage."""
        return self.storage.gather(self.ids, start, length, self.storage.fill if fill is None else fill)


class Windowed(Storage):
    """Windows of recordings that lie one after another, made when they are taken: they may overlap without taking memory.

    flat: (total, C). starts: (n,) int64, the first step of each window. ends: (n,) int64, where its recording ends in `flat`;
    what is beyond is NaN. length: steps of a window. finish: applied to windows (B, C, length)."""

    def __init__(
        self,
        flat: Tensor,
        starts: Tensor,
        ends: Tensor,
        length: int,
        finish: Callable[[Tensor], Tensor] | None = None,
    ):
        assert starts.shape == ends.shape, (starts.shape, ends.shape)
        self.flat, self.starts, self.ends, self.length, self.finish = flat, starts, ends, length, finish

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.flat, self.starts, self.ends))

    @property
    def device(self) -> torch.device:
        return self.flat.device

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.flat.shape[1], self.length)

    def __getitem__(self, index: int) -> Tensor:
        return self.take(torch.tensor([index], device=self.device))[0]

    def to(self, device: torch.device) -> Windowed:
        return Windowed(self.flat.to(device), self.starts.to(device), self.ends.to(device), self.length, self.finish)

    def select(self, ids: Tensor) -> Windowed:
        ids = ids.to(self.device)
        return Windowed(self.flat, self.starts[ids], self.ends[ids], self.length, self.finish)

    def narrow(self, start: int, stop: int) -> Windowed:
        return Windowed(self.flat, self.starts[start:stop], self.ends[start:stop], self.length, self.finish)

    def concat(self, other: Windowed) -> Windowed:
        same = other.flat is self.flat
        shift = 0 if same else len(self.flat)
        return Windowed(
            self.flat if same else torch.cat([self.flat, other.flat]),
            torch.cat([self.starts, other.starts + shift]),
            torch.cat([self.ends, other.ends + shift]),
            self.length,
            self.finish,
        )

    def take(self, ids: Tensor) -> Tensor:
        """(B, C, length) float32."""
        steps = self.starts[ids][:, None] + torch.arange(self.length, device=self.device)
        x = self.flat[steps.clamp(max=len(self.flat) - 1)].transpose(1, 2)
        x = x.masked_fill((steps >= self.ends[ids][:, None])[:, None], torch.nan)
        return x if self.finish is None else self.finish(x)

    def batch(self, ids: Tensor, device: torch.device) -> Tensor:
        return self.take(ids.to(self.device)).to(device)
