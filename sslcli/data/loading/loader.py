"""From sample ids to batches of views.

What a step sees is a function of `(seed, step)` alone: `order(seed, epoch)` gives the ids, and every random number
comes from `(seed, epoch, id)`. So nothing of the loader is ever saved, and workers, batch size or a resume change no
view.

Resident data needs no worker: the tensor lies on the device and a batch is one gather. Streamed data is decoded once
per sample by worker processes, cropped to each view's size while still uint8, and finished on the device.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
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
    """The order of each epoch. A thread makes the next one's while this one is used: a million samples take a sixth of a
    second."""

    def __init__(self, seed: int, n: int):
        self.seed, self.n = seed, n
        self.known: dict[int, Future[Tensor]] = {}
        self.clerk = ThreadPoolExecutor(1, thread_name_prefix="order")

    def __call__(self, epoch: int) -> Tensor:
        """A permutation of the samples, (n,) int64."""
        if not {epoch, epoch + 1} <= self.known.keys():  # the first time that this epoch is asked for
            self.known = {e: self._of(e) for e in (epoch, epoch + 1)}
        return self.known[epoch].result()

    def _of(self, epoch: int) -> Future[Tensor]:
        return self.known.get(epoch) or self.clerk.submit(order, self.seed, epoch, self.n)


class Loader:
    """Endless batches of views for pretraining.

    `batch_size` is the global batch of one optimizer step: each of `world_size` processes makes its share, in `accumulate`
    micro-batches. `labels=True` puts labels into the batch, for methods that say `uses_labels`.

    Another sample stands in for one that cannot be read (`bad_samples.py`), and its id is in the batch. Raises
    RequestError when the batch does not fit the data or the processes; while training, DataError when more than
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
    ):
        n = len(source)
        check_batch_size(batch_size, accumulate, world_size, n)
        if workers < 0:
            raise RequestError(f"device.workers={workers}: expected at least 0")
        if labels and source.labels is None:
            raise RequestError("this method learns from labels, but the data has none")
        self.source, self.views, self.seed, self.workers = source, views, seed, workers
        self.device = torch.device(device)
        self.batch_size, self.accumulate, self.rank, self.world_size = batch_size, accumulate, rank, world_size
        self.steps_per_epoch = n // batch_size
        self._labels = source.labels.to(self.device) if labels and source.labels is not None else None
        self._orders = EpochOrder(seed, n)
        self._bad = BadSamples(source, tell=True)
        self._waited = 0.0

    @property
    def bad(self) -> list[tuple[str, str]]:
        """(name, reason) of each unreadable sample met so far."""
        return list(self._bad.by_id.values())

    def share_bad(self) -> list[tuple[str, str]]:
        """`bad` of all processes. DataError when they are too many together. Every process must ask."""
        for met in all_gather_object(self._bad.reasons):
            self._bad.add(met)
        return self.bad

    @property
    def wait(self) -> float:
        """Seconds spent on data since this was last read: waiting for it, and making views of it. (On a GPU the views run while
        Python goes on; what counts there is the time to launch them.)"""
        waited, self._waited = self._waited, 0.0
        return waited

    def ids(self, step: int) -> list[Tensor]:
        """The sample ids of each micro-batch that this process makes of `step`, (B,) int64 each."""
        epoch, s = divmod(step, self.steps_per_epoch)
        whole = self._orders(epoch)[s * self.batch_size : (s + 1) * self.batch_size]
        return [c.clone() for c in whole.chunk(self.accumulate * self.world_size)[self.rank :: self.world_size]]

    def stream(self, step: int = 0) -> BatchIterator:
        """Micro-batches from optimizer step `step` on, without end. Close it (or drop it) to stop the workers."""
        if self.device.type != "cuda":
            return BatchIterator(self._batches(step))
        if self.source.resident is not None:
            move_to_device(self.source, self.device)
        return Prefetcher(self._batches(step), self.device)

    def _batches(self, step: int) -> Generator[Batch, None, None]:
        made = self._resident(step) if self.source.resident is not None else self._streamed(step)
        try:
            while True:
                start = time.perf_counter()
                views, draw = next(made)  # without end
                self._waited += time.perf_counter() - start
                labels = None if self._labels is None else self._labels[draw.ids]
                yield Batch(views, self.views.kinds, draw, labels)
        finally:
            made.close()

    def _specs(self, step: int) -> Iterator[tuple[int, Tensor]]:
        while True:
            for ids in self.ids(step):
                yield step // self.steps_per_epoch, ids
            step += 1

    def _resident(self, step: int) -> Generator[tuple[list[Tensor], Draw], None, None]:
        x = move_to_device(self.source, self.device)
        replay = None
        if x.device.type == "cuda":
            replay = CudaGraphViews(lambda epoch, ids: self.views(x[ids], Draw(self.seed, epoch, ids)))
        for epoch, ids in self._specs(step):
            require_unchanged()
            ids, bad = resolve_bad(self.source, ids, self.seed)
            self._bad.add(bad)
            there = ids.to(self.device, non_blocking=True)
            draw = Draw(self.seed, epoch, there)
            yield (replay(epoch, there) if replay else self.views(x[ids.to(x.device)].to(self.device), draw)), draw

    def _streamed(self, step: int) -> Generator[tuple[list[Tensor], Draw], None, None]:
        job = DecodeTask(self.source, self.views, self.seed, replace=True)
        made = decode_batches(job, self._specs(step), self.workers, self.device)
        try:
            for epoch, ids, frames, bad in made:
                self._bad.add(bad)
                draw = Draw(self.seed, epoch, ids.to(self.device, non_blocking=True))
                yield self.views.finish(move_all(frames, self.device), draw), draw
        finally:
            made.close()


# ------------------------------------------------------------------------------------------------ resident data
