"""What crosses processes, so that a loss can be written as if there were one device.

The convention (checked by tests/nn/test_parity.py): every process's loss is an estimate of the *global* batch's loss,
and the engine averages gradients over processes, as DistributedDataParallel does. A loss that is a mean over samples
needs nothing. A loss that compares samples, or takes statistics of a batch, sees the whole batch through `gather`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many processes train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Each process used the gathered rows in its own loss, so a row's gradient is the sum over processes.
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        n = len(grad) // world()
        return grad[rank() * n : (rank() + 1) * n]


def gather(x: Tensor) -> Tensor:
    """(B, ...) -> (B * world, ...), the rows of all processes in rank order; gradients flow back to all of them.

    The identity on one process. Every process must bring the same number of rows.
    """
    return x if world() == 1 else _Gather.apply(x)


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """The mean of `x` over processes, without gradient: for numbers that are shown."""
    if world() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world()
