"""Memory bank: the latest embedding of every sample of the data set (Wu et al., CVPR 2018)."""

from __future__ import annotations

from torch import Tensor

from sslcli.nn.queue import Queue


class MemoryBank(Queue):
    """Unit vectors `keys` (samples, dim) in the order of the sample ids; `ids` is -1 for samples without an embedding yet.

    `stage` and `push` as of a queue, but an embedding replaces the previous one of its sample.
    """

    def _replace_oldest(self, keys: Tensor, ids: Tensor) -> None:
        self.keys[ids] = keys.to(self.keys.dtype)
        self.ids[ids] = ids
