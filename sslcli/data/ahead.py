"""On a GPU: the views of the next batch are made beside the step on this one.

They run on a stream of their own, in the room that the step's kernels leave, and are in the device's queue before the step is;
so a step that begins finds its views made, and while the host looks at a result the device has work.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch

from sslcli.methods.base import Batch


def ahead(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """The same batches; each is begun, on a stream of its own, when the one before it is asked for."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))  # the data may just have been moved there

    def begin() -> tuple[Batch, Any]:
        with torch.cuda.stream(side):
            batch = next(batches)  # without end
            return batch, side.record_event()

    try:
        following = begin()
        while True:
            (batch, made), following = following, begin()
            step = torch.cuda.current_stream(device)
            step.wait_event(made)
            for tensor in (*batch.views, batch.draw.ids, *([] if batch.labels is None else [batch.labels])):
                tensor.record_stream(step)  # its memory is the side's, to be used again only when the step is through
            yield batch
    finally:
        batches.close()
