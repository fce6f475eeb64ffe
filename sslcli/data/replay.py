"""On a GPU: the views of a batch as one CUDA graph.

A batch of views is some hundred small kernels, and Python takes many times as long to launch them as the device to run them.
What they do depends on the epoch and on the samples' ids alone, and the ids lie on the device: so the first batch of an epoch is
recorded, and the others play the recording with their own ids. The same kernels, the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.data import talk

Make = Callable[[int, Tensor], list[Tensor]]  # (epoch, ids (B,) int64 on the device) -> views


class Replay:
    """`make`, played from a recording. It must run on a stream of its own, as `Ahead` has one, and where it cannot be recorded
    (an op that asks the device something) it is called as it is."""

    def __init__(self, make: Make):
        self.make = make
        self.of: tuple[int, int] | None = None  # what is recorded: epoch and batch size
        self.able = True
        self.memory = torch.cuda.graph_pool_handle()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, epoch: int, ids: Tensor) -> list[Tensor]:
        if not self.able:
            return self.make(epoch, ids)
        if self.graph is None or self.of != (epoch, len(ids)):
            made = self.make(epoch, ids)  # what is made once, constants and workspaces, is there before the recording
            self.record(epoch, ids)
            return made
        self.ids.copy_(ids)
        self.graph.replay()
        return [view.clone() for view in self.views]  # the next one is written over these

    def record(self, epoch: int, ids: Tensor) -> None:
        self.of, self.ids, self.views = (epoch, len(ids)), ids.clone(), []
        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(pool=self.memory, capture_error_mode="thread_local")
            try:
                self.views = self.make(epoch, self.ids)
            finally:
                graph.capture_end()
            self.graph = graph  # the one before it held the memory until now: this one has the same
        except RuntimeError as e:
            self.able = False
            talk.say(
                f"the views are launched one by one, which costs time: they cannot be recorded ({str(e).splitlines()[0]})"
            )
