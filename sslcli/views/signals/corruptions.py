"""Corruptions of time series: functions of series (B, C, T) in standard deviations of the channel, a severity 0..4 and a
generator for each sample. NaN, which is padding or missing, stays NaN. See `corruption.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.views.corruption import Corruption, Generators, normal, uniform


def noise(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Additive Gaussian noise: 0.1 .. 1.2 standard deviations of the channel."""
    return x + (0.1, 0.25, 0.5, 0.8, 1.2)[s] * normal(x, generators)


def scaling(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Multiply or divide each channel by 1.15 .. 2.5, at random."""
    factor = (1.15, 1.3, 1.6, 2.0, 2.5)[s]
    return torch.where(uniform(x, generators, x.shape[1], 1) < 0.5, x / factor, x * factor)


def drift(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Add a sine of amplitude 0.2 .. 2 with 0.5 to 2 periods, and random phase, per channel."""
    u = uniform(x, generators, x.shape[1], 2)
    time = torch.linspace(0, 2 * math.pi, x.shape[2])
    return x + (0.2, 0.5, 0.9, 1.4, 2.0)[s] * torch.sin((0.5 + 1.5 * u[..., :1]) * time + 2 * math.pi * u[..., 1:])


def dropout(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Set 5 .. 60 % of all time steps to 0, the mean."""
    dropped = uniform(x, generators, 1, x.shape[2]) < (0.05, 0.12, 0.25, 0.4, 0.6)[s]
    return torch.where(dropped & ~x.isnan(), 0.0, x)


def time_shift(x: Tensor, s: int, generators: Generators) -> Tensor:
    """Circular shift in time by 3 .. 40 % of the series' length."""
    share = (0.03, 0.08, 0.15, 0.25, 0.4)[s]
    sign = torch.where(uniform(x, generators, 1)[:, 0] < 0.5, -1, 1).tolist()
    out = x.clone()
    for i, distance in enumerate(sign):
        there = torch.nonzero(~x[i].isnan().all(dim=0)).flatten()
        out[i][:, there] = x[i][:, there].roll(distance * max(1, round(share * len(there))), dims=1)
    return out


CORRUPTIONS: dict[str, Corruption] = {f.__name__: f for f in (noise, scaling, drift, dropout, time_shift)}
