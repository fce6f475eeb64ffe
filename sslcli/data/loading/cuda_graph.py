"""Capture the views of a batch as a CUDA graph and replay it.

A batch of views takes some hundred small kernels, which Python launches many times slower than the device runs them. What
they compute depends on the epoch and the sample ids alone, and the ids are on the device: the second batch of an epoch is
captured, and every later batch of that epoch replays the graph with its own ids. The same kernels give the same values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.data import notify

MakeViews = Callable[[int, Tensor], list[Tensor]]  # (epoch, ids (B,) int64 on the device) -> views


class CudaGraphViews:
    """`make_views`, replayed from a CUDA graph. Call it on a side stream, as `Prefetcher` does: the default stream cannot be
    captured. Where capture fails (an operation that synchronizes with the device), `make_views` is called directly."""

    def __init__(self, make_views: MakeViews):
        self.make_views = make_views
        self.last_key: tuple[int, int] | None = None  # epoch and size of the last batch
        self.captured_key: tuple[int, int] | None = None
        self.can_capture = True
        self.memory_pool = torch.cuda.graph_pool_handle()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, epoch: int, ids: Tensor) -> list[Tensor]:
        previous, self.last_key = self.last_key, (epoch, len(ids))
        if self.can_capture and self.captured_key != self.last_key == previous:
            self.capture(epoch, ids)
        if self.graph is None or self.captured_key != self.last_key:
            return self.make_views(epoch, ids)  # the first batch of an epoch also warms up constants and workspaces
        self.ids.copy_(ids)
        self.graph.replay()
        return [view.clone() for view in self.views]  # the next replay overwrites these

    def capture(self, epoch: int, ids: Tensor) -> None:
        self.ids, self.views = ids.clone(), []
        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(pool=self.memory_pool, capture_error_mode="thread_local")
            try:
                self.views = self.make_views(epoch, self.ids)
            finally:
                graph.capture_end()
            # The previous graph is released only here, after the new one has taken over the memory pool.
            self.graph, self.captured_key = graph, self.last_key
        except RuntimeError as e:
            self.can_capture = False
            notify.log(
                f"the views cannot be captured as a CUDA graph ({str(e).splitlines()[0]}): "
                "their kernels are launched one by one, which is slower"
            )
