"""A small table, for tests: three columns of numbers, one of which has missing values, and three of categories."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.nn.values import Columns

VALUES = Columns((0, 4, 0, 3, 6, 0), (40.0, 0.5, 1e5), (10.0, 0.25, 2e4))


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows (n, 6) and labels (n,): the first number and the first category depend on the label."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=g)
    columns = [
        torch.randint(0 if j == 4 else 1, k, (n,), generator=g).float() if k else torch.randn(n, generator=g)
        for j, k in enumerate(VALUES.categories)
    ]
    x = torch.stack(columns, dim=1)
    x[:, 0] += 2 * y - 1
    x[:, 1] = torch.where(torch.rand(n, generator=g) < 0.7, 1.0 + y, x[:, 1])
    x[:, 2] = torch.where(torch.rand(n, generator=g) < 0.2, math.nan, x[:, 2])
    return x, y


def dataset(n: int = 200) -> Dataset:
    train, test = rows(n), rows(n // 2, 1)
    return Dataset("rows", "table", (6,), ArraySource(*train), ArraySource(*test), ("no", "yes"), values=VALUES)
