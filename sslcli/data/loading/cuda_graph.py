"""On a GPU: the views of a batch as one CUDA graph.

A batch of views is some hundred small kernels, and Python takes many times as long to launch them as the device to run them.
What they do depends on the epoch and on the samples' ids alone, and the ids lie on the device: so the second batch of an epoch is
recorded, and all from it on play the recording with their own ids. The same kernels, the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.data import notify

MakeViews = Callable[[int, Tensor], list[Tensor]]  # (epoch, ids (B,) int64 on the device) -> views


class CudaGraphViews:
    """`make`, played from a recording. It must run on a stream of its own, as `Ahead` has one, and where it cannot be recorded
    (an op that asks the device something) it is called as it is."""

    def __init__(self, make: MakeViews):
        self.make = make
        self.met: tuple[int, int] | None = None  # epoch and size of the last batch
        self.of: tuple[int, int] | None = None  # of the one that is recorded
        self.able = True
        self.memory = torch.cuda.graph_pool_handle()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, epoch: int, ids: Tensor) -> list[Tensor]:
        before, self.met = self.met, (epoch, len(ids))
        if self.able and self.of != self.met == before:
            self.record(epoch, ids)
        if (
            self.graph is None or self.of != self.met
        ):  # the first: what is made once, constants and workspaces, is there after it
            return self.make(epoch, ids)
        self.ids.copy_(ids)
        self.graph.replay()
        return [view.clone() for view in self.views]  # the next one is written over these

    def record(self, epoch: int, ids: Tensor) -> None:
        self.ids, self.views = ids.clone(), []
        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(pool=self.memory, capture_error_mode="thread_local")
            try:
                self.views = self.make(epoch, self.ids)
            finally:
                graph.capture_end()
            self.graph, self.of = graph, self.met  # the one before it held the memory until now: this one has the same
        except RuntimeError as e:
            self.able = False
            notify.log(
                f"the views are launched one by one, which costs time: they cannot be recorded ({str(e).splitlines()[0]})"
            )
