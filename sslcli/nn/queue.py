"""A first-in-first-out memory of past embeddings, carried across steps and checkpoints in buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import gather


class Queue(nn.Module):
    """`size` unit vectors of width `dim`, with the sample id of each (-1: not filled yet, a random direction).

    A method's `forward` says `hold`, its `after_step` says `push`: within a step the queue stands still (a gradient may need
    it), and what a skipped step brought is dropped. Every process holds the same queue: `push` gathers what all bring.
    """

    keys: Tensor
    ids: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one key, not {size}")
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))
        self.held: list[tuple[Tensor, Tensor]] = []

    def hold(self, keys: Tensor, ids: Tensor) -> None:
        """(B, dim) keys of the samples `ids` (B,), for the next `push`."""
        self.held.append((keys.detach(), ids.to(self.ids.device)))

    @torch.no_grad()
    def likeness(self, x: Tensor, ids: Tensor) -> Tensor:
        """(B, size) cosine similarity of x (B, dim) and the keys; -inf where a key is of the same sample or not filled yet."""
        found = F.normalize(x, dim=1).to(self.keys.dtype) @ self.keys.T
        return found.masked_fill((self.ids < 0) | (ids[:, None] == self.ids), float("-inf"))

    def drop(self) -> None:
        """Forgets what is held."""
        self.held.clear()

    @torch.no_grad()
    def push(self) -> None:
        """What is held, in place of the oldest entries."""
        for keys, ids in self.held:
            self._replace_oldest(gather(keys), gather(ids))
        self.drop()

    def _replace_oldest(self, keys: Tensor, ids: Tensor) -> None:
        size, n = len(self.keys), len(keys)
        keys, ids = keys[-size:], ids[-size:]  # more than fits: the newest
        at = (self.head + torch.arange(n - len(keys), n, device=self.ids.device)) % size
        self.keys[at] = keys.to(self.keys.dtype)
        self.ids[at] = ids
        self.head.add_(n).remainder_(size)
