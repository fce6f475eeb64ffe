"""Samples in cache-sized blocks, each worked on by one thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sslcli.errors import DataError

FAR_OFF = 16.0  # times the variance that a mean's square may have before it is taken off: two bits of precision
Part = slice | Tensor


class Blocks:
    """Samples in blocks, centered where the mean is large compared with the variance (centroids are then centered too)."""

    def __init__(self, x: Tensor, pool: ThreadPoolExecutor | None, threads: int):
        self.x, self.pool, self.threads = x, pool, threads
        self.local = threading.local()
        self.norms = x.new_empty(len(x))
        self.off, zero = True, torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
        self.mean = (
            sum(self.each(lambda p: x[p].sum(dim=0, dtype=torch.float64), self.blocks(8)), zero) / len(x)
        ).float()
        self.variance = float(sum(self.each(self._measure, self.blocks(8)), zero).mean()) / len(x)
        if not math.isfinite(self.variance):
            raise DataError("samples to be clustered are not finite, or too large to be squared")
        if float(self.mean.square().mean()) <= FAR_OFF * self.variance:
            self.off, self.mean = False, torch.zeros_like(self.mean)
            self.each(self._measure, self.blocks(8))

    def _measure(self, part: slice) -> Tensor:
        squares = self.take(part).square()
        self.norms[part] = squares.sum(dim=1)
        return squares.sum(dim=0, dtype=torch.float64)

    def take(self, part: Part) -> Tensor:
        """(B, D) of the centered samples, until this thread takes others."""
        if isinstance(part, slice):
            return (
                torch.sub(self.x[part], self.mean, out=self._room(part.stop - part.start)) if self.off else self.x[part]
            )
        x = torch.index_select(self.x, 0, part, out=self._room(len(part)))
        return x.sub_(self.mean) if self.off else x

    def _room(self, n: int) -> Tensor:
        """Memory that is in the cache already; fresh memory would cost more than what is done with it."""
        if len(getattr(self.local, "room", ())) < n:
            self.local.room = self.x.new_empty(n, self.x.shape[1])
        return self.local.room[:n]

    def size(self, k: int) -> int:
        """Samples in a block that meets k centers: scores and samples stay in the cache of a core; on a GPU, in bounds."""
        if self.x.device.type != "cpu":
            return max(1024, min(1 << 18, (1 << 26) // k))
        return 4096 if k <= 16 else 1024 if k <= 64 else 256

    def blocks(self, k: int, n: int | None = None) -> list[slice]:
        """All samples, or n of them."""
        size, n = self.size(k), len(self.x) if n is None else n
        return [slice(at, min(at + size, n)) for at in range(0, n, size)]

    def each(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """The work on each part, in their order."""
        return [work(p) for p in parts] if self.pool is None else list(self.pool.map(work, parts))


@contextmanager
def open_blocks(x: Tensor) -> Iterator[Blocks]:
    """torch's own threads share one product; here each of as many threads has products of its own, which are the same
    however many they are."""
    x = x.detach().float().contiguous()
    threads = torch.get_num_threads()
    if x.device.type != "cpu" or threads == 1:
        yield Blocks(x, None, 1)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield Blocks(x, pool, threads)
    finally:
        torch.set_num_threads(threads)
