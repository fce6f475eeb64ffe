"""Batches of views for pretraining, from sample ids.

The batch of a step is a function of `(seed, step)` alone: `order(seed, epoch)` gives the ids, and every random number is a
function of `(seed, epoch, id)`. So a loader has no state to save, and neither the number of workers nor the batch size nor
a resume changes a view.

Resident data needs no worker: it is on the device and a batch is one gather. Streamed data is decoded once per
sample by worker processes, cropped to the size of each view while still uint8, and finished on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from sslcli.batch import Batch
from sslcli.config.batch_size import check_batch_size
from sslcli.data.dataset import Source
from sslcli.data.files.memory_map import require_unchanged
from sslcli.data.loading.bad_samples import BadSamples
from sslcli.data.loading.cuda_graph import CudaGraphViews
from sslcli.data.loading.prefetch import BatchIterator, Prefetcher
from sslcli.data.loading.resident import move_all, move_to_device, resolve_bad
from sslcli.data.loading.workers import DecodeTask, ViewMaker, decode_batches
from sslcli.errors import RequestError
from sslcli.nn.dist import all_gather_object
from sslcli.rng import Draw, order


class EpochOrder:
    """The permutation of the samples in each epoch. A thread computes that of the next epoch in advance: a million samples
    take a sixth of a second."""

    def __init__(self, seed: int, n: int):
        self.seed, self.n = seed, n
        self.futures: dict[int, Future[Tensor]] = {}
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="order")

    def __call__(self, epoch: int) -> Tensor:
        """A permutation of the samples, (n,) int64."""
        if not {epoch, epoch + 1} <= self.futures.keys():  # the first call in this epoch
            self.futures = {e: self._future(e) for e in (epoch, epoch + 1)}
        return self.futures[epoch].result()

    def _future(self, epoch: int) -> Future[Tensor]:
        return self.futures.get(epoch) or self.executor.submit(order, self.seed, epoch, self.n)


class Loader:
    """Endless batches of views for pretraining.

    `batch_size` is the global batch of one optimizer step: each of `world_size` processes makes its share, in `accumulate`
    micro-batches. `labels=True` puts labels into the batch, for methods with `uses_labels`; `captions` makes those of a draw,
    (B, L) int64 on `device`, for methods with `uses_captions`.

    An unreadable sample is replaced by another one (`bad_samples.py`), whose id is in the batch. Raises RequestError where
    the batch size does not suit the data or the processes; while training, DataError where more than
    `source.max_bad_fraction` of the samples are unreadable.
    """

    def __init__(
        self,
        source: Source,
        views: ViewMaker,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        labels: bool = False,
        captions: Callable[[Draw], Tensor] | None = None,
    ):
        n = len(source)
        check_batch_size(batch_size, accumulate, world_size, n)
        if workers < 0:
            raise RequestError(f"device.workers={workers}: expected at least 0")
        if labels and source.labels is None:
            raise RequestError("this method requires labels, but the data set has none")
        self.source, self.views, self.seed, self.workers = source, views, seed, workers
        self.device = torch.device(device)
        self.batch_size, self.accumulate, self.rank, self.world_size = batch_size, accumulate, rank, world_size
        self.steps_per_epoch = n // batch_size
        self._labels = source.labels.to(self.device) if labels and source.labels is not None else None
        self._captions = captions
        self._epoch_order = EpochOrder(seed, n)
        self._bad = BadSamples(source, report=True)
        self._waited = 0.0

    @property
    def bad(self) -> list[tuple[str, str]]:
        """(name, reason) of each unreadable sample found so far."""
        return list(self._bad.by_id.values())

    def gather_bad(self) -> list[tuple[str, str]]:
        """`bad` of all processes, a collective call. Raises DataError where they exceed the limit together."""
        for reasons in all_gather_object(self._bad.reasons):
            self._bad.add(reasons)
        return self.bad

    @property
    def wait(self) -> float:
        """Seconds spent waiting for data and making views since this was last read. On a GPU the views run asynchronously, and
        the time to launch them counts."""
        waited, self._waited = self._waited, 0.0
        return waited

    def ids(self, step: int) -> list[Tensor]:
        """The sample ids of each micro-batch of `step` on this process, (B,) int64 each."""
        epoch, s = divmod(step, self.steps_per_epoch)
        whole = self._epoch_order(epoch)[s * self.batch_size : (s + 1) * self.batch_size]
        return [c.clone() for c in whole.chunk(self.accumulate * self.world_size)[self.rank :: self.world_size]]

    def stream(self, step: int = 0) -> BatchIterator:
        """Endless micro-batches, beginning with those of optimizer step `step`."""
        if self.device.type != "cuda":
            return BatchIterator(self._batches(step))
        if self.source.resident is not None:
            move_to_device(self.source, self.device)
        return Prefetcher(self._batches(step), self.device)

    def _batches(self, step: int) -> Generator[Batch, None, None]:
        batches = self._resident(step) if self.source.resident is not None else self._streamed(step)
        try:
            while True:
                start = time.perf_counter()
                views, draw = next(batches)
                self._waited += time.perf_counter() - start
                labels = None if self._labels is None else self._labels[draw.ids]
                captions = None if self._captions is None else self._captions(draw)
                yield Batch(views, self.views.kinds, draw, labels, captions)
        finally:
            batches.close()

    def _specs(self, step: int) -> Iterator[tuple[int, Tensor]]:
        while True:
            for ids in self.ids(step):
                yield step // self.steps_per_epoch, ids
            step += 1

    def _resident(self, step: int) -> Generator[tuple[list[Tensor], Draw], None, None]:
        x = move_to_device(self.source, self.device)
        graph = None
        if x.device.type == "cuda":
            graph = CudaGraphViews(lambda epoch, ids: self.views(x.batch(ids, ids.device), Draw(self.seed, epoch, ids)))
        for epoch, ids in self._specs(step):
            require_unchanged()
            ids, bad = resolve_bad(self.source, ids, self.seed)
            self._bad.add(bad)
            device_ids = ids.to(self.device, non_blocking=True)
            draw = Draw(self.seed, epoch, device_ids)
            yield (graph(epoch, device_ids) if graph else self.views(x.batch(ids, self.device), draw)), draw

    def _streamed(self, step: int) -> Generator[tuple[list[Tensor], Draw], None, None]:
        task = DecodeTask(self.source, self.views, self.seed, replace=True)
        batches = decode_batches(task, self._specs(step), self.workers, self.device)
        try:
            for epoch, ids, frames, bad in batches:
                self._bad.add(bad)
                draw = Draw(self.seed, epoch, ids.to(self.device, non_blocking=True))
                yield self.views.finish(move_all(frames, self.device), draw), draw
        finally:
            batches.close()
