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

FAR_OFF = 16.0  # samples are centered if mean^2 exceeds this multiple of the variance (costs two bits of precision)
Part = slice | Tensor


class Blocks:
    """Samples in blocks, centered if the mean is large compared with the variance (cluster centers are then centered, too)."""

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
            raise DataError("samples to be clustered are not finite, or their squares overflow")
        if float(self.mean.square().mean()) <= FAR_OFF * self.variance:
            self.off, self.mean = False, torch.zeros_like(self.mean)
            self.each(self._measure, self.blocks(8))

    def _measure(self, part: slice) -> Tensor:
        squares = self.take(part).square()
        self.norms[part] = squares.sum(dim=1)
        return squares.sum(dim=0, dtype=torch.float64)

    def take(self, part: Part) -> Tensor:
        """Centered samples (B, D). The buffer is valid until the next call of this thread."""
        if isinstance(part, slice):
            return (
                torch.sub(self.x[part], self.mean, out=self._room(part.stop - part.start)) if self.off else self.x[part]
            )
        x = torch.index_select(self.x, 0, part, out=self._room(len(part)))
        return x.sub_(self.mean) if self.off else x

    def _room(self, n: int) -> Tensor:
        """A buffer (n, D) of this thread, reused so that it stays in the cache; allocating would cost more than the arithmetic."""
        if len(getattr(self.local, "room", ())) < n:
            self.local.room = self.x.new_empty(n, self.x.shape[1])
        return self.local.room[:n]

    def size(self, k: int) -> int:
        """Samples per block for k centers: scores and samples fit into a core's cache; on a GPU, memory is bounded."""
        if self.x.device.type != "cpu":
            return max(1024, min(1 << 18, (1 << 26) // k))
        return 4096 if k <= 16 else 1024 if k <= 64 else 256

    def blocks(self, k: int, n: int | None = None) -> list[slice]:
        """Slices that cover all samples, or the first n."""
        size, n = self.size(k), len(self.x) if n is None else n
        return [slice(at, min(at + size, n)) for at in range(0, n, size)]

    def each(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """Results of `work` on each part, in the order of the parts."""
        return [work(p) for p in parts] if self.pool is None else list(self.pool.map(work, parts))


@contextmanager
def open_blocks(x: Tensor) -> Iterator[Blocks]:
    """Blocks of x (N, D) with a thread pool of torch's thread count; torch itself uses one thread inside.

    Each product is computed by a single thread, so results do not depend on the number of threads.
    """
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
