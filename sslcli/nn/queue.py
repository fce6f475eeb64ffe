"""First-in-first-out queue of past embeddings (MoCo), stored in buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import gather


class Queue(nn.Module):
    """`size` unit vectors of width `dim`, with the sample id of each (-1: empty, a random direction).

    `forward` of a method calls `stage`, `after_step` calls `push`: within a step the queue is constant (gradients may need it), and
    embeddings of a skipped step are discarded. Every process has the same queue: `push` gathers the embeddings of all.
    """

    keys: Tensor
    ids: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        if size < 1:
            raise ValueError(f"the queue must have at least 1 key, got {size}")
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))
        self.staged: list[tuple[Tensor, Tensor]] = []

    def stage(self, keys: Tensor, ids: Tensor) -> None:
        """Keep keys (B, dim) of the samples `ids` (B,) for the next `push`."""
        self.staged.append((keys.detach(), ids.to(self.ids.device)))

    @torch.no_grad()
    def similarity(self, x: Tensor, ids: Tensor) -> Tensor:
        """Cosine similarity (B, size) of x (B, dim) and the keys; -inf for keys of the same sample and empty entries."""
        similarity = F.normalize(x, dim=1).to(self.keys.dtype) @ self.keys.T
        return similarity.masked_fill((self.ids < 0) | (ids[:, None] == self.ids), float("-inf"))

    def discard(self) -> None:
        """Drop staged embeddings."""
        self.staged.clear()

    @torch.no_grad()
    def push(self) -> None:
        """Replace the oldest entries by the staged embeddings of all processes."""
        for keys, ids in self.staged:
            self._replace_oldest(gather(keys), gather(ids))
        self.discard()

    def _replace_oldest(self, keys: Tensor, ids: Tensor) -> None:
        size, n = len(self.keys), len(keys)
        keys, ids = keys[-size:], ids[-size:]  # the newest where there are more than `size`
        at = (self.head + torch.arange(n - len(keys), n, device=self.ids.device)) % size
        self.keys[at] = keys.to(self.keys.dtype)
        self.ids[at] = ids
        self.head.add_(n).remainder_(size)
