"""The scalar that an attribution map explains where a value is predicted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.grid_search import choice_notes
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.regression.ridge import ALPHA_GRID
from sslcli.evals.regression.ridge_layer import fit_ridge_layer
from sslcli.evals.regression.values import all_values, draw_values


class PredictedValue:
    """How far the value that ridge regression predicts is from the mean, in standard deviations of the training values.

    It is counted in the direction of the prediction for the whole sample: what moves that away from the mean is important."""

    unit = "standard deviations from the mean"

    def __init__(self, backbone: nn.Module, data: EvalData, amount: subsets.Amount):
        with evaluating(backbone):
            data.features(backbone, "train")
        values = all_values(data, "train")[data.ids("train")]
        rows = draw_values(values, amount, data, 0)
        layer, choice = fit_ridge_layer(backbone, data, rows, values[rows])
        self.backbone, self.layer = backbone, layer.to(data.device)
        self.mean, self.std = float(values[rows].mean()), float(values[rows].std(unbiased=False)) or 1.0
        self.what = f"the value that ridge regression (labels {amount}) predicts, as its distance from the mean"
        self.notes = choice_notes([choice], ALPHA_GRID, "alpha of the probe", "evaluator.strengths")

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """The standardized prediction (B,) for each whole sample."""
        return self._standardized(self.backbone(x))

    def titles(self, target: Tensor) -> list[str]:
        """The predicted value of each sample."""
        return [f"{value:.4g}" for value in (target * self.std + self.mean).tolist()]

    def score(self, z: Tensor, target: Tensor) -> Tensor:
        return self._standardized(z) * torch.where(target < 0, -1.0, 1.0)

    @torch.no_grad()
    def evaluate(self, x: Tensor, target: Tensor) -> Tensor:
        return self.score(self.backbone(x), target)

    def _standardized(self, z: Tensor) -> Tensor:
        return (self.layer(z.float())[:, 0] - self.mean) / self.std
