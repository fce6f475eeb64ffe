"""Which positions, such as the columns of a table, matter most: the mean of the importance over samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.runs import Record


@dataclass
class PositionImportance:
    """Sums over samples of the absolute importance of positions that have names."""

    names: list[str]

    def __post_init__(self) -> None:
        self.n = 0
        self.total, self.squares = (torch.zeros(len(self.names), dtype=torch.float64) for _ in range(2))

    def add(self, importance: Tensor) -> None:
        """`importance` (B, *grid), with a position for each name."""
        absolute = importance.flatten(1).abs().double().cpu()
        assert absolute.shape[1] == len(self.names), (importance.shape, len(self.names))
        self.n += len(absolute)
        self.total += absolute.sum(dim=0)
        self.squares += absolute.square().sum(dim=0)

    def ranking(self) -> list[Record]:
        """By descending importance: `name`, `importance` (mean absolute value), its `share` of the sum over positions, and
        `standard_error`, that of the share. All shares are 0 where no position has any importance."""
        mean = self.total / self.n
        variance = (self.squares - self.n * mean.square()).clamp(min=0) / max(1, self.n - 1)
        error = (variance / self.n).sqrt()
        whole = float(mean.sum()) or 1.0
        return [
            {
                "name": self.names[i],
                "importance": float(mean[i]),
                "share": float(mean[i]) / whole,
                "standard_error": float(error[i]) / whole,
            }
            for i in mean.argsort(descending=True, stable=True).tolist()
        ]
