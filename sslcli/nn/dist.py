"""Collective operations, each the identity (or equivalent) on one process, so that methods are written as for one device.

Convention (tested by tests/nn/test_parity.py): the loss of every process is an estimate of the *global* batch's loss, and gradients
are averaged over processes, as in DistributedDataParallel. A loss that is a mean over samples needs no communication. A loss that
compares samples, or uses statistics of a batch, sees the whole batch through `gather`.

On several processes, all must call these functions in the same order.
"""

from __future__ import annotations

import io
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Number of processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 without torch.distributed."""
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
        # Each process uses the gathered rows in its loss, so the gradient of a row is the sum over processes.
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        n = len(grad) // world_size()
        return grad[rank() * n : (rank() + 1) * n]


def gather(x: Tensor) -> Tensor:
    """(B, ...) -> (B * world_size, ...), the rows of all processes in rank order; gradients flow to all processes.

    The identity on one process. Every process must pass the same number of rows.
    """
    return x if world_size() == 1 else _Gather.apply(x)


@torch.no_grad()
def gather_rows(x: Tensor) -> Tensor:
    """(n, ...) -> (sum of n, ...) in rank order, for different numbers of rows per process; no gradient."""
    if world_size() == 1:
        return x
    counts = [int(n) for n in gather(torch.tensor([len(x)]))]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = gather(padded).chunk(world_size())
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


@torch.no_grad()
def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of `x` over processes, without gradient."""
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


# -------------------------------------------------------------------------------------------------------------- objects


def all_reduce_max(*numbers: int) -> list[int]:
    """The maximum of each integer over processes, such as a flag that one process sets for all."""
    return list(numbers) if world_size() == 1 else all_reduce_max_(torch.tensor(numbers, dtype=torch.int64)).tolist()


def all_reduce_max_(numbers: Tensor) -> Tensor:
    """In-place maximum of a tensor over processes, without synchronizing with its device."""
    if world_size() > 1:
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers


def broadcast_from_rank0(value: T) -> T:
    """Rank 0's value on every process: tensors, numbers, strings, and lists, tuples and dictionaries of them."""
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
    """The values of all ranks in rank order, on every process; types as in `broadcast_from_rank0`."""
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
    """Unlike torch's `broadcast_object_list`, does not unpickle: another process must not choose what is executed here."""
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
