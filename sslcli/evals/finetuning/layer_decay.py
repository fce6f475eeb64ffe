"""Layer-wise learning rate decay: the rate decreases from the head towards the input.

Layer-wise decay as in BEiT (Bao et al., ICLR 2022, arXiv:2106.08254) and MAE's fine-tuning: the head learns at the full
rate, the layer below it at `decay` times that, the next at `decay` squared, ...
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sslcli.backbones.layers import layer_factors
from sslcli.optim import parameter_groups


def groups(backbone: nn.Module, head: nn.Module, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer, each with its `factor` of the learning rate: `decay` ** (layers above it)."""
    factor = {f"0.{name}": value for name, value in layer_factors(backbone, decay).items()}
    by_key: dict[tuple[float, float], dict[str, Any]] = {}
    for group in parameter_groups(nn.Sequential(backbone, head), weight_decay):
        for name, p in zip(group["param_names"], group["params"], strict=True):
            key = factor.get(name, 1.0), group["weight_decay"]
            by_key.setdefault(key, {"params": [], "factor": key[0], "weight_decay": key[1]})["params"].append(p)
    return [by_key[key] for key in sorted(by_key)]
