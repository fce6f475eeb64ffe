"""A linear probe as a thing to ask: fitted once, then shown any features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.evals.fit.grid_search import Choice, Grid
from sslcli.evals.fit.logistic import Fit, Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.probe import STRENGTHS, TOLERANCE, Standardiser, choose


@dataclass(frozen=True)
class Head:
    """Logistic regression on standardised features; column j of its logits is class `classes[j]`."""

    standardise: Standardiser
    fit: Fit
    classes: Tensor  # (K,) int64, those seen in training, ascending
    choice: Choice  # of the penalty's strength

    def logits(self, z: Tensor) -> Tensor:
        """(n, d) features, as the backbone gives them -> (n, K), on the CPU."""
        z = z.cpu().float()
        return self.fit.logits(self.standardise(z, torch.arange(len(z))))

    def predict(self, z: Tensor) -> Tensor:
        """(n,) classes."""
        return self.classes[self.logits(z).argmax(dim=1)]

    def linear(self, device: torch.device | str) -> nn.Linear:
        """The same, standardisation inside, as one frozen layer: for gradients."""
        weight = self.standardise.scale[:, None] * self.fit.weight  # (d, K)
        layer = nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(weight.T)
            layer.bias.copy_(self.fit.bias - self.standardise.mean @ weight)
        return layer.requires_grad_(False).to(device)


def fit_head(
    x: Tensor,
    y: Tensor,
    amount: subsets.Amount,
    seed: int,
    names: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
    strength: float | None = None,
    name: str = "the data set",
    groups: Tensor | None = None,
) -> Head:
    """The probe's protocol on training features (n, d) with labels (n,), -1 where there is none.

    `strength`: scikit-learn's C; None chooses it on training samples; `groups` (n,) are never divided for that.
    DataError where there is too little to tell apart.
    """
    subsets.check(y, "train", name)
    ids = subsets.draw(y, amount, seed, 0, names)
    subsets.check(y[ids], "train", name)
    classes, targets = y[ids].unique(return_inverse=True)
    standardise = Standardiser(x)
    rows = standardise(x, ids).to(device)
    grid = STRENGTHS if strength is None else Grid.of([strength])
    choice = choose(rows, targets, len(classes), grid, seed, 0, None if groups is None else groups[ids])
    return Head(standardise, Logistic(rows, targets, len(classes)).fit(choice.value, TOLERANCE), classes, choice)
