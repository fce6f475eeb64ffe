"""On a GPU: the views of the next batch are made beside the step on this one.

They run on a stream of their own, in the room that the step's kernels leave. Python's time to launch them, a few hundred small
kernels, would stand between two steps: so whoever waits for a step's result lets the next batch begin first (`begin`), while
the device has the step to work on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch

from sslcli.batch import Batch


class BatchIterator:
    """Batches without end, one after the other. Close it (or drop it) to stop what makes them."""

    def __init__(self, batches: Generator[Batch, None, None]):
        self.batches = batches

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Batch:
        return next(self.batches)

    def begin(self) -> None:
        """The caller has launched its work on the last batch and is about to wait for it."""

    def close(self) -> None:
        self.batches.close()


class Prefetcher(BatchIterator):
    """The same, each made on a stream of its own of `device`."""

    def __init__(self, batches: Generator[Batch, None, None], device: torch.device):
        super().__init__(batches)
        self.device = device
        self.side = torch.cuda.Stream(device)
        self.side.wait_stream(torch.cuda.current_stream(device))  # the data may just have been moved there
        self.begun: tuple[Batch, Any] | None = None

    def begin(self) -> None:
        if self.begun is None:
            with torch.cuda.stream(self.side):
                batch = next(self.batches)
                self.begun = batch, self.side.record_event()

    def __next__(self) -> Batch:
        self.begin()
        assert self.begun is not None
        (batch, made), self.begun = self.begun, None
        step = torch.cuda.current_stream(self.device)
        step.wait_event(made)
        for tensor in (*batch.views, batch.draw.ids, *([] if batch.labels is None else [batch.labels])):
            tensor.record_stream(step)  # its memory is the side's, to be used again only when the step is through
        return batch
