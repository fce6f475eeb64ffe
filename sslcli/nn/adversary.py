"""Adversarial training of two networks with one optimizer and one backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from sslcli.nn.decoder import CONV
from sslcli.nn.precision import full_precision


class Critic(nn.Module):
    """Discriminator: (B, *shape), and (B, latent) if `latent` is above 0 -> (B,), high for real samples.

    Strided convolutions with spectral norm (Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
    ICLR 2018) and no batch norm, so that samples are scored independently.
    """

    def __init__(self, shape: tuple[int, ...], width: int, latent: int = 0):
        super().__init__()
        channels, *size = shape
        conv: Any = CONV[len(size)]
        layers: list[nn.Module] = []
        wide = width
        while max(size) > 4:
            kernel, stride, padding = (tuple(n if s > 1 else m for s in size) for n, m in ((4, 1), (2, 1), (1, 0)))
            layers += [spectral_norm(conv(channels, wide, kernel, stride, padding)), nn.LeakyReLU(0.2)]
            size = [max(1, s // 2) if s > 1 else 1 for s in size]
            channels, wide = wide, min(2 * wide, 4 * width)
        self.look = nn.Sequential(*layers)
        hidden = 4 * width
        self.join = spectral_norm(nn.Linear(channels * math.prod(size) + latent, hidden))
        self.judge = spectral_norm(nn.Linear(hidden, 1))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        if min(x.shape[2:]) < 2:
            x = F.pad(x, (0, 1))
        h = self.look(x).flatten(1)
        h = h if z is None else torch.cat([h, z.to(h.dtype)], dim=1)
        return self.judge(F.leaky_relu(self.join(h), 0.2)).squeeze(1)


def with_frozen_parameters(module: nn.Module, *inputs: Tensor) -> Tensor:
    """`module(*inputs)` with gradients to the inputs but not to the parameters of the module."""
    state = {name: p.detach() for name, p in module.named_parameters()}
    out: Tensor = functional_call(module, state, inputs)
    return out


@full_precision
def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss (Lim & Ye, 2017; Miyato et al., eq. (16)) of scores (B,): real above 1, fake below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
