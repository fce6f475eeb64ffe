"""Ridge regression: min over w, b of |y - X w - b|^2 + alpha |w|^2, with alpha chosen on training rows.

Hoerl & Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 12, 1970. The intercept is not
penalized, as in scikit-learn's `Ridge`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.evals.fit.grid_search import Choice, Grid, Score, search
from sslcli.evals.inputs.label_subsets import folds, several
from sslcli.rng import derive, order

# scikit-learn's alpha, of standardized features: first 1e-2 to 1e4, continued while an edge is best
ALPHA_GRID = Grid(tuple(float(f"1e{e}") for e in range(-6, 11)), first=4, last=10)
DEFAULT_ALPHA = 1.0  # with too few rows to choose from
FOLDS = 5
CHOOSE_ON_AT_MOST = 20_000  # rows
ROWS = 4096  # converted to double precision at a time


@dataclass(frozen=True)
class RidgeFit:
    weight: Tensor  # (d,) float64
    bias: float

    def predict(self, x: Tensor) -> Tensor:
        """Values (m,) float64 of features (m, d)."""
        return torch.cat([part.double() @ self.weight for part in x.split(ROWS)]) + self.bias


class Ridge:
    """Fits for any number of penalties from one eigendecomposition, in double precision. x (n, d), y (n,)."""

    def __init__(self, x: Tensor, y: Tensor):
        n, d = x.shape
        self.x = x
        self.x_mean = sum((part.double().sum(dim=0) for part in x.split(ROWS)), torch.zeros(d, dtype=torch.float64)) / n
        self.y_mean = y.double().mean()
        residual = y.double() - self.y_mean
        self.dual = n < d
        if self.dual:
            centered = x.double() - self.x_mean
            gram, target = centered @ centered.T, residual
        else:
            gram, target = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
            for part, r in zip(x.split(ROWS), residual.split(ROWS), strict=True):
                centered = part.double() - self.x_mean
                gram += centered.T @ centered
                target += centered.T @ r
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp(min=0)
        self.target = self.vectors.T @ target

    def fit(self, alpha: float) -> RidgeFit:
        """alpha > 0: the weight of the penalty."""
        solution = self.vectors @ (self.target / (self.values + alpha))
        weight = (self.x.double() - self.x_mean).T @ solution if self.dual else solution
        return RidgeFit(weight, float(self.y_mean - self.x_mean @ weight))


def choose_alpha(x: Tensor, y: Tensor, grid: Grid, seed: int, index: int, groups: Tensor | None = None) -> Choice:
    """The penalty with the smallest squared error in cross-validation over training rows. `groups` (n,) are never divided."""
    if len(grid.values) == 1:
        return Choice(grid.values[0])
    if len(y) > CHOOSE_ON_AT_MOST:
        subset = order(derive(seed, "choose"), index, len(y))[:CHOOSE_ON_AT_MOST]
        x, y, groups = x[subset], y[subset], None if groups is None else groups[subset]
    groups = several(groups)
    count = min(FOLDS, len(y) if groups is None else len(groups.unique()))
    if len(y) < 4 or count < 2:
        return Choice(DEFAULT_ALPHA, "default: too few labels to choose from")
    fold = folds(torch.zeros(len(y), dtype=torch.int64), count, seed, index, groups)
    models = [Ridge(x[fold != f], y[fold != f]) for f in range(count)]

    def score(alpha: float) -> Score:
        parts = [(model.fit(alpha).predict(x[fold == f]) - y[fold == f]).square() for f, model in enumerate(models)]
        return (-float(torch.cat(parts).sum()),)

    how = f"squared error over {count} folds of {len(y)} labelled training samples"
    return search(grid, score, how, enough=lambda scores: False)
