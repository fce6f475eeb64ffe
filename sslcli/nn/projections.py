"""Random 1-D projections of embeddings, and the invariance loss of LeJEPA and VISReg."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.precision import full_precision


def random_directions(step: int, dim: int, count: int, like: Tensor) -> Tensor:
    """Random unit columns (dim, count): a function of the step, with device and dtype of `like`."""
    generator = torch.Generator().manual_seed(0x51B3 + step)
    columns = torch.randn(dim, count, generator=generator)
    return F.normalize(columns, dim=0).to(like.device, like.dtype, non_blocking=True)


@full_precision
def invariance_loss(z: Tensor, count: int) -> Tensor:
    """Mean squared distance of V views (V, B, P) to the mean of the first `count`, the global ones."""
    return (z - z[:count].mean(dim=0)).square().mean()
