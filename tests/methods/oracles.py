"""Helpers of loss tests: reference values, small batches, reference cosine similarity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sslcli.methods.base import Batch
from sslcli.rng import Draw

SIZES = [(2, 3), (3, 1), (7, 5), (12, 16)]
every_size = pytest.mark.parametrize(("n", "d"), SIZES)


def draws(*shape: int, count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def images(
    n: int = 4,
    views: int = 2,
    kind: str = "global",
    shape: tuple[int, ...] = (1, 8, 8),
    epoch: int = 0,
    labels: torch.Tensor | None = None,
) -> Batch:
    """A batch of `n` samples with ids 0..n-1."""
    x = draws(n, *shape, count=views)
    return Batch([v.float() for v in x], [kind] * views, Draw(0, epoch, torch.arange(n)), labels)
