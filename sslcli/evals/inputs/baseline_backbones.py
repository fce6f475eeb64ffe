"""Backbones of the same architecture as the evaluated one, with other weights: `untrained`, and `given`, those that the pretraining
started from (`init`), which show whether training helped.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sslcli.errors import SslError
from sslcli.evals.base.result import Baseline, Baselines, has_baseline

NAMES: tuple[Baseline, ...] = ("untrained", "given")


class BaselineBackbones:
    """Each is made once, when it is first asked for. `makers`: by name, where there is one. Where the weights of `given` are no
    longer there, that is a line in `notes`."""

    def __init__(self, makers: dict[str, Callable[..., nn.Module] | None], device: torch.device, notes: list[str]):
        self.makers, self.device, self.notes = makers, device, notes
        self.made: dict[str, nn.Module | None] = {}

    def get(self, name: str) -> nn.Module | None:
        make = self.makers.get(name)
        if name not in self.made and make is not None:
            try:
                self.made[name] = make().to(self.device)
            except SslError as e:
                if name != "given":
                    raise
                self.notes.append(f"no baseline of {name} weights: {e.message}")
                self.made[name] = None
        return self.made.get(name)

    def wanted(self, baselines: Baselines) -> dict[str, nn.Module]:
        """Those among `baselines`, by name."""
        found = {name: self.get(name) for name in NAMES if has_baseline(baselines, name)}
        return {name: backbone for name, backbone in found.items() if backbone is not None}

    def name_of(self, backbone: nn.Module) -> str:
        """The name of the baseline that a backbone is; "" for any other."""
        return next((name for name, other in self.made.items() if other is backbone), "")
