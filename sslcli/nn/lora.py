"""Low-rank adaptation (LoRA): linear layers with frozen weights and a trained update of low rank.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685, eq. (3): W + B A, where A (r, in) is
initialized at random and B (out, r) with zero, so that the network is the same at first. Deviations: the scale alpha / r is 1, as
for alpha = r; A has the standard deviation 1 / sqrt(in); and the update is added to the weight before it is used, which is the same
function. It thus covers layers that use the weight itself, such as `nn.MultiheadAttention`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

FACTORS = ("lora_a", "lora_b")


class LowRankUpdate(nn.Module):
    """W -> W + B A, for `torch.nn.utils.parametrize`."""

    def __init__(self, out: int, into: int, rank: int):
        super().__init__()
        self.lora_a = nn.Parameter(torch.randn(rank, into) / math.sqrt(into))
        self.lora_b = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.lora_b @ self.lora_a


def add_lora(module: nn.Module, rank: int) -> int:
    """Freezes a network, and adds trained updates of a rank to the weights of its linear layers that could be trained before.

    Returns the number of updated weights. Uses the default generator of random numbers."""
    layers = [
        (layer, name)
        for layer in module.modules()
        for name in (
            ("weight",) if isinstance(layer, nn.Linear) else ("in_proj_weight",) if _has_in_proj(layer) else ()
        )
        if getattr(layer, name).requires_grad
    ]
    module.requires_grad_(False)
    for layer, name in layers:
        weight = getattr(layer, name)
        update = LowRankUpdate(weight.shape[0], weight.shape[1], rank)
        parametrize.register_parametrization(layer, name, update.to(weight.device))
    return len(layers)


def _has_in_proj(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None


def merge_lora(module: nn.Module) -> None:
    """Replaces the weights of a network by those with their updates, so that it has the parameters that it had without LoRA."""
    for layer in [m for m in module.modules() if parametrize.is_parametrized(m)]:
        updates: Any = layer.parametrizations
        weights = {
            name: getattr(layer, name).detach()
            for name, steps in updates.items()
            if isinstance(steps[0], LowRankUpdate)
        }
        if weights.keys() != updates.keys():
            raise ValueError(f"{type(layer).__name__} has other parametrizations than those of LoRA")
        # torch's remove_parametrizations changes the class of the layer, which a deep copy shares
        del layer.parametrizations
        layer.__class__ = type(layer).__bases__[0]
        others = dict(layer._parameters)
        layer._parameters.clear()  # the order of the parameters is that of the state dict: the weight comes first
        for name, weight in weights.items():
            layer.register_parameter(name, nn.Parameter(weight.clone(), requires_grad=False))
        layer._parameters.update(others)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a network with LoRA as that of the same network without it."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        head, inside, rest = name.partition("parametrizations.")
        weight, _, factor = rest.partition(".")
        if not inside:
            out[name] = value
        elif factor == "original":
            a, b = (state[f"{head}{inside}{weight}.0.{f}"] for f in FACTORS)
            out[f"{head}{weight}"] = value + b @ a
    return out
