"""The newest embedding of each sample, for methods that look back at the whole data set."""

from __future__ import annotations

from torch import Tensor

from sslcli.nn.queue import Queue


class MemoryBank(Queue):
    """(samples, dim) `keys`, in the order of the sample ids; `ids` is -1 where a sample was not met yet.

    `hold` and `push` as of a queue, but an embedding replaces that of its own sample.
    """

    def _replace_oldest(self, keys: Tensor, ids: Tensor) -> None:
        self.keys[ids] = keys.to(self.keys.dtype)
        self.ids[ids] = ids
