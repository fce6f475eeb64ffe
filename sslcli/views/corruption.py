"""Corruptions of samples at five severities, each sample with random numbers of its own.

The kinds follow Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019; implementation and severities differ, so results are not comparable with those on CIFAR-10-C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslcli.rng import derive

STRENGTHS = 5
Generators = Sequence[torch.Generator]  # one of each sample
Corruption = Callable[[Tensor, int, Generators], Tensor]  # samples (B, ...) on the CPU, severity 0..4 -> samples


def corrupt(corruption: Corruption, name: str, x: Tensor, strength: int, ids: Tensor, seed: int) -> Tensor:
    """Corrupt the samples x (B, ...) with the ids (B,), at severity `strength` in 1..5, on the CPU.

    The randomness of a sample depends on (seed, id, name) only: not on the batch, and not on the strength.
    """
    assert 1 <= strength <= STRENGTHS, strength
    generators = [torch.Generator().manual_seed(derive(seed, "corrupt", name, i)) for i in ids.tolist()]
    return corruption(x.cpu(), strength - 1, generators)


def normal(x: Tensor, generators: Generators) -> Tensor:
    """Standard normal numbers of the shape of x."""
    return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])


def uniform(x: Tensor, generators: Generators, *shape: int) -> Tensor:
    """Uniform numbers in 0..1, (B, *shape), or of the shape of x."""
    return torch.stack([torch.rand(shape or x.shape[1:], generator=g) for g in generators])
