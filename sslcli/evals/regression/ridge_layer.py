"""Ridge regression of a backbone's features as one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.grid_search import Choice
from sslcli.evals.fit.linear_probe import Standardizer
from sslcli.evals.regression.ridge import ALPHA_GRID, Ridge, choose_alpha


def fit_ridge_layer(backbone: nn.Module, data: EvalData, rows: Tensor, y: Tensor) -> tuple[nn.Linear, Choice]:
    """The regression of the probe, with the penalty that it would choose, fitted to `rows` (m,) of the training features with the
    values `y` (m,), as a frozen layer on features as they come, on the CPU."""
    x, _ = data.features(backbone, "train")
    standardize = Standardizer(x)
    z = standardize(x, rows)
    groups = data.groups("train")
    choice = choose_alpha(z, y, ALPHA_GRID, data.seed, 0, None if groups is None else groups[rows])
    fit = Ridge(z, y).fit(choice.value)
    weight = fit.weight * standardize.scale.double()
    layer = nn.Linear(x.shape[1], 1).requires_grad_(False)
    layer.weight.copy_(weight[None])
    layer.bias.fill_(fit.bias - float(standardize.mean.double() @ weight))
    return layer, choice
