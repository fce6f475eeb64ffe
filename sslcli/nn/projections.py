"""What LeJEPA and its kin share: views near the mean of the global ones, random directions to look at all embeddings along."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.precision import full_precision


def directions(step: int, dim: int, count: int, like: Tensor) -> Tensor:
    """(dim, count) unit columns: a function of the step alone, on the device and of the type of `like`."""
    generator = torch.Generator().manual_seed(0x51B3 + step)
    drawn = torch.randn(dim, count, generator=generator)
    return F.normalize(drawn, dim=0).to(like.device, like.dtype, non_blocking=True)


@full_precision
def invariance(z: Tensor, count: int) -> Tensor:
    """The squared distance of each of V views (V, B, P) to the mean of the first `count`, the global ones; averaged over all."""
    return (z - z[:count].mean(dim=0)).square().mean()
