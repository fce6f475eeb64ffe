"""Exact nearest neighbors by dot product, in bounded memory, and what they predict: classes or values, weighted by similarity."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

QUERIES = 1024  # at a time
BANK = 65_536  # at a time: a block of similarities is at most QUERIES x BANK floats (256 MB)


def classify(
    bank: Tensor,
    y: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Classes (q,) of `queries` (q, d) from their k nearest neighbors in `bank` (n, d) with classes `y` (n,), all L2-normalized."""
    return class_scores(bank, y, queries, k, temperature, device).argmax(dim=1)


def class_scores(
    bank: Tensor,
    y: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Sum (q, K) of the weights of the k nearest neighbors by class; the nearest neighbor of each query has weight 1."""
    weights, index = neighbor_weights(bank, queries, k, temperature, device)
    return torch.zeros(len(queries), int(y.max()) + 1).scatter_add_(1, y[index], weights)


def mean_values(
    bank: Tensor,
    y: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Values (q,) float64 of `queries` (q, d): the weighted mean of the values `y` (n,) of the k nearest neighbors in `bank`."""
    weights, index = neighbor_weights(bank, queries, k, temperature, device)
    weights = weights.double()
    return (weights * y.double()[index]).sum(dim=1) / weights.sum(dim=1)


def neighbor_weights(
    bank: Tensor, queries: Tensor, k: int, temperature: float, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Weights and indices (q, k) of the nearest neighbors; exp(similarity / temperature), divided by that of the nearest."""
    similarity, index = nearest_neighbors(bank, queries, min(k, len(bank)), device)
    # exp(s / T) up to a factor per query, so that small temperatures do not overflow
    return ((similarity - similarity[:, :1]) / temperature).exp(), index


def nearest_neighbors(
    bank: Tensor, queries: Tensor, k: int, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """The k largest dot products of each query (q, d) with the rows of `bank` (n, d), descending, and the indices of these rows.

    Both are (q, k), on the CPU. The search is exact; memory is bounded for any n and q.
    """
    assert 1 <= k <= len(bank), (k, len(bank))
    return nearest_in_blocks(((block, None) for block in bank.split(BANK)), queries, k, device)


def nearest_in_blocks(
    blocks: Iterable[tuple[Tensor, Tensor | None]], queries: Tensor, k: int, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """The same for a bank that is read in blocks (b, d) of at most BANK rows, each with a factor (b,) of its products, or None."""
    values = torch.full((len(queries), k), -torch.inf)
    places = torch.zeros(len(queries), k, dtype=torch.int64)
    # one buffer for all products: allocating memory for each block costs a third of the products
    room = torch.empty(0, dtype=queries.dtype, device=device)
    start = 0
    for block, factors in blocks:
        block = block.to(device)
        if len(room) < (size := min(QUERIES, len(queries)) * len(block)):
            room = torch.empty(size, dtype=queries.dtype, device=device)
        for at in range(0, len(queries), QUERIES):
            part = queries[at : at + QUERIES].to(device)
            products = room[: len(part) * len(block)].view(len(part), len(block))
            torch.mm(part, block.T, out=products)
            if factors is not None:
                products *= factors.to(device)
            v, i = _top(products, min(k, len(block)))
            rows = slice(at, at + len(part))
            v, i = v.cpu(), i.cpu() + start
            if start:
                v, i = torch.cat([values[rows], v], dim=1), torch.cat([places[rows], i], dim=1)
                v, order = v.topk(k, dim=1)
                i = i.gather(1, order)
            values[rows, : v.shape[1]], places[rows, : i.shape[1]] = v, i
        start += len(block)
    return values, places


def _top(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`s.topk(k)` over (q, n), faster: the k largest values are in the k stripes with the largest maxima."""
    q, n = s.shape
    k = min(k, n)
    deep = int((n / k) ** 0.5)  # entries of a stripe
    wide = n // max(deep, 1)  # stripes; stripe j holds columns j, j + wide, j + 2 wide, ...
    if n < 4096 or wide < k or deep < 4:
        return s.topk(k, dim=1)
    body = s[:, : deep * wide].unflatten(1, (deep, wide))
    stripes = body.amax(dim=1).topk(k, dim=1, sorted=False).indices  # (q, k)
    columns = (stripes[:, None] + torch.arange(0, deep * wide, wide, device=s.device)[None, :, None]).flatten(1)
    rest = torch.arange(deep * wide, n, device=s.device).expand(q, -1)
    columns = torch.cat([columns, rest], dim=1)
    values, order = s.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, order)
