"""What crosses processes, so that everything else can be written as if there were one.

The convention (checked by tests/nn/test_parity.py): every process's loss is an estimate of the *global* batch's loss,
and the engine averages gradients over processes, as DistributedDataParallel does. A loss that is a mean over samples
needs nothing. A loss that compares samples, or takes statistics of a batch, sees the whole batch through `gather`.

Each function here is the identity (or its like) on one process; on several, all must call it, in the same order.
"""

from __future__ import annotations

import io
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


# ------------------------------------------------------------------------------------------------------------ tensors


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Each process used the gathered rows in its own loss, so a row's gradient is the sum over processes.
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        n = len(grad) // world_size()
        return grad[rank() * n : (rank() + 1) * n]


def gather(x: Tensor) -> Tensor:
    """(B, ...) -> (B * world_size, ...), the rows of all processes in rank order; gradients flow back to all of them.

    The identity on one process. Every process must bring the same number of rows.
    """
    return x if world_size() == 1 else _Gather.apply(x)


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """(n, ...) -> (sum of n, ...) in rank order, where processes may bring different numbers of rows; no gradient."""
    if world_size() == 1:
        return x
    counts = [int(n) for n in gather(torch.tensor([len(x)]))]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = gather(padded).chunk(world_size())
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


@torch.no_grad()
def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of `x` over processes, without gradient: for numbers that are shown."""
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


# ------------------------------------------------------------------------------------------------------------ decisions


def all_reduce_max(*numbers: int) -> list[int]:
    """The largest of each number over processes: what one of them wants, all do."""
    return list(numbers) if world_size() == 1 else all_reduce_max_(torch.tensor(numbers, dtype=torch.int64)).tolist()


def all_reduce_max_(numbers: Tensor) -> Tensor:
    """The same on the numbers' device, in place, without waiting for it."""
    if world_size() > 1:
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers


def broadcast_from_rank0(value: T) -> T:
    """Rank 0's value (tensors, numbers, text, and lists, tuples and dictionaries of them), everywhere."""
    if world_size() == 1:
        return value
    data = _encode(value) if rank() == 0 else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(data)])
    dist.broadcast(size, src=0)
    if rank() > 0:
        data = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, src=0)
    return value if rank() == 0 else _decode(data)


def all_gather_object(value: T) -> list[T]:
    """Every rank's value (as in `broadcast_from_rank0`), everywhere, in rank order."""
    if world_size() == 1:
        return [value]
    data = _encode(value)
    sizes = [int(n) for n in gather(torch.tensor([len(data)]))]
    parts = gather(torch.nn.functional.pad(data, (0, max(sizes) - len(data)))).chunk(world_size())
    return [_decode(part[:n]) for part, n in zip(parts, sizes, strict=True)]


def _encode(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _decode(data: Tensor) -> Any:
    """Not torch's `broadcast_object_list`, which unpickles: another process is not to choose what is called here."""
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
