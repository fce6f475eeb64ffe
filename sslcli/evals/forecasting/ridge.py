"""Ridge regression with many outputs, accumulated over blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  # of standardized features

Blocks = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # features (b, d) and targets (b, k), block by block


class ManyRidge:
    """min over W, b of |Y - X W - b|^2 + alpha |W|^2, features standardized; each row counts the same for all outputs."""

    def __init__(self, blocks: Blocks):
        count = 0
        sums: list[Tensor] = []
        for x, y in blocks():
            x, y = x.double(), y.double()
            parts = [x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y]
            sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
            count += len(x)
        self.rows = count
        x_sum, y_sum, gram, cross = sums
        self.x_mean, self.y_mean = x_sum / count, y_sum / count
        variance = (gram.diagonal() / count - self.x_mean.square()).clamp(min=0)
        varies = variance.sqrt() > 1e-6 * variance.sqrt().max().clamp(min=1e-30)
        self.scale = torch.where(varies, variance.clamp(min=1e-60).rsqrt(), 0.0)
        gram = (gram - count * torch.outer(self.x_mean, self.x_mean)) * self.scale[:, None] * self.scale
        cross = (cross - count * torch.outer(self.x_mean, self.y_mean)) * self.scale[:, None]
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp(min=0)
        self.target = self.vectors.T @ cross

    def weights(self, alpha: float) -> Tensor:
        """(d, k) float32, of standardized features."""
        return (self.vectors @ (self.target / (self.values + alpha)[:, None])).float()

    def predict(self, x: Tensor, weights: Tensor) -> Tensor:
        """(b, k) of features (b, d)."""
        standardized = ((x.double() - self.x_mean) * self.scale).float()
        return standardized @ weights + self.y_mean.float()
