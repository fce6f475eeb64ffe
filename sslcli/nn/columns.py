"""Inputs of networks on the columns of a table."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from sslcli.nn.values import Columns


class CategoryEmbedding(nn.Module):
    """A learned vector (dim) for each category of C columns: x (B, F) -> (B, C, dim).

    All columns share one table, so that many are looked up at once. The unknown category of a column has a vector too, which is
    0 at first: it has no effect where no training row lacks a value."""

    def __init__(self, values: Columns, dim: int):
        super().__init__()
        sizes = [n for n in values.categories if n]
        self.columns: Tensor
        self.starts: Tensor
        self.register_buffer("columns", torch.tensor(categorical(values), dtype=torch.int64), persistent=False)
        starts = [0, *itertools.accumulate(sizes)][:-1] if sizes else []
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.weight = uniform(sum(sizes), dim)
        self.weight.data[self.starts] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[x[:, self.columns].nan_to_num().long() + self.starts]


class ColumnVector(nn.Module):
    """Rows (B, F) -> (B, width), the input of a perceptron: numbers, 0 where one is missing; 1 where one is missing, else 0; and
    embeddings of the categories."""

    def __init__(self, values: Columns, dim: int = 8):
        super().__init__()
        self.numeric: Tensor
        self.register_buffer("numeric", torch.tensor(values.slices.numeric, dtype=torch.int64), persistent=False)
        self.categories = CategoryEmbedding(values, dim)
        self.width = 2 * len(self.numeric) + dim * len(self.categories.columns)

    def forward(self, x: Tensor) -> Tensor:
        numbers = x[:, self.numeric]
        return torch.cat(
            [numbers.nan_to_num(), numbers.isnan().to(x.dtype), self.categories(x).flatten(1).to(x.dtype)], dim=1
        )


def categorical(values: Columns) -> list[int]:
    """The columns of categories."""
    return [j for j, n in enumerate(values.categories) if n]


def uniform(rows: int, dim: int) -> nn.Parameter:
    """(rows, dim) from U(-1 / sqrt(dim), 1 / sqrt(dim))."""
    bound = 1 / math.sqrt(dim)
    return nn.Parameter(torch.empty(rows, dim).uniform_(-bound, bound))
