"""Numbers that scripts/golden and the tests both make from a seed, so that golden files hold only answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent


def numbers(seed: int, *shape: int) -> Tensor:
    """Standard normal float64; NumPy promises that RandomState never changes."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).random_sample(shape))


def fill(module: nn.Module, seed: int, scale: float = 0.2) -> nn.Module:
    """`module` in float64 with every parameter drawn from `seed`, in the order of its names."""
    module.double()
    with torch.no_grad():
        for i, (_, p) in enumerate(sorted(module.named_parameters())):
            p.copy_(scale * numbers(seed + i, *p.shape))
    return module


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def save(name: str, answers: dict[str, Any]) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(answers) + "\n")
