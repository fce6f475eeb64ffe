"""Prefetch the views of the next batch on a side CUDA stream.

The kernels that make views fill the room that the kernels of the training step leave. Launching some hundred small kernels
takes Python longer than the device needs to run them, so the next batch is launched (`prefetch`) while the device works on
the current step, before the result of that step is waited for.
"""

from __future__ import annotations

from collections.abc import Generator

import torch

from sslcli.batch import Batch


class BatchIterator:
    """Endless batches, one after the other. Closing or dropping it stops the workers that make them."""

    def __init__(self, batches: Generator[Batch, None, None]):
        self.batches = batches

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Batch:
        return next(self.batches)

    def prefetch(self) -> None:
        """Launch the next batch, if that can run asynchronously. Call it after launching a step and before waiting for it."""

    def close(self) -> None:
        self.batches.close()


class Prefetcher(BatchIterator):
    """A `BatchIterator` that makes each batch on a side stream of the CUDA `device`."""

    def __init__(self, batches: Generator[Batch, None, None], device: torch.device):
        super().__init__(batches)
        self.device = device
        self.side_stream = torch.cuda.Stream(device)
        self.side_stream.wait_stream(
            torch.cuda.current_stream(device)
        )  # resident data may have been copied there just now
        self.pending: tuple[Batch, torch.cuda.Event] | None = None

    def prefetch(self) -> None:
        if self.pending is None:
            with torch.cuda.stream(self.side_stream):
                batch = next(self.batches)
                self.pending = batch, self.side_stream.record_event()

    def __next__(self) -> Batch:
        self.prefetch()
        assert self.pending is not None
        (batch, ready), self.pending = self.pending, None
        main_stream = torch.cuda.current_stream(self.device)
        main_stream.wait_event(ready)
        given = [x for x in (batch.labels, batch.captions) if x is not None]
        for tensor in (*batch.views, batch.draw.ids, *given):
            tensor.record_stream(main_stream)  # the side stream's allocator reuses the memory only after the step
        return batch
