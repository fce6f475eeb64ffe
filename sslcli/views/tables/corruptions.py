"""Corruptions of rows of a table: functions of rows (B, F) in standard deviations of the column, a severity 0..4 and a generator
for each row. See `corruption.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.nn.values import Columns
from sslcli.views.corruption import Corruption, Generators, normal, uniform


def corruptions(values: Columns) -> Mapping[str, Corruption]:
    """By name; `noise` and `shift` only where there are numbers."""

    def noise(x: Tensor, s: int, generators: Generators) -> Tensor:
        """Additive Gaussian noise on numbers: 0.1 .. 1.2 standard deviations."""
        return values.add_noise(x, (0.1, 0.25, 0.5, 0.8, 1.2)[s] * normal(x, generators))

    def missing(x: Tensor, s: int, generators: Generators) -> Tensor:
        """5 .. 60 % of the entries missing, at random."""
        where = uniform(x, generators) < (0.05, 0.12, 0.25, 0.4, 0.6)[s]
        return torch.where(where, torch.where(values.is_category(x), 0.0, math.nan), x)

    def shift(x: Tensor, s: int, generators: Generators) -> Tensor:
        """Each column of numbers 0.1 .. 1.5 standard deviations up or down, at random, as after a change of instruments."""
        sign = torch.where(uniform(x, generators) < 0.5, -1.0, 1.0)
        return values.add_noise(x, (0.1, 0.25, 0.5, 1.0, 1.5)[s] * sign)

    every = {"noise": noise, "missing": missing, "shift": shift}
    return every if values.slices.numeric else {"missing": missing}
