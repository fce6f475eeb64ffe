"""Random directions to look at a cloud of embeddings along, the same on every process."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def directions(step: int, dim: int, count: int, like: Tensor) -> Tensor:
    """(dim, count) unit columns: a function of the step alone, on the device and of the type of `like`."""
    generator = torch.Generator().manual_seed(0x51B3 + step)
    drawn = torch.randn(dim, count, generator=generator)
    return F.normalize(drawn, dim=0).to(like.device, like.dtype, non_blocking=True)
