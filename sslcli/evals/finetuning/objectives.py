"""What a backbone and its head are trained for: classes, or a value."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.evals.finetuning.mixup import mix_batch
from sslcli.evals.finetuning.recipe import Recipe


class Objective(Protocol):
    """Of m labeled samples."""

    measure: ClassVar[str]  # name of what `score` gives
    outputs: int  # of the head
    y: Tensor  # (m,) on the CPU, as the first head is made from it

    def targets(self, x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
        """The inputs (B, ...) of a batch whose part of `self.y` is y (B,), mixed where the recipe says so, and their targets."""

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor: ...

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) whose mean is `measure`."""

    def finish(self, head: nn.Linear) -> None:
        """Change the trained head so that its outputs have the unit of the labels."""


class Classes:
    """Cross-entropy of the classes `y` (m,) in 0..outputs-1, multiplied by the `weights` (outputs,) of the classes, if any."""

    measure: ClassVar[str] = "accuracy"

    def __init__(self, y: Tensor, outputs: int, weights: Tensor | None = None):
        self.y, self.outputs, self.weights = y, outputs, weights

    def part(self, places: Tensor) -> Classes:
        return Classes(self.y[places], self.outputs, self.weights)

    def targets(self, x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
        return mix_batch(x, y, self.outputs, recipe.mixup, recipe.cutmix, seed)

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        weights = None if self.weights is None else self.weights.to(outputs.device, outputs.dtype)
        return F.cross_entropy(outputs, targets, weights, label_smoothing=recipe.label_smoothing)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(dim=1) == targets.argmax(dim=1)

    def finish(self, head: nn.Linear) -> None:
        pass


class Values:
    """Squared error of the values (m,), which are standardized by their own mean and standard deviation."""

    measure: ClassVar[str] = "r2"
    outputs = 1

    def __init__(self, values: Tensor):
        values = values.double()
        self.mean = float(values.mean())
        self.scale = float(values.std(unbiased=False)) or 1.0  # equal values
        self.y = ((values - self.mean) / self.scale).float()

    def targets(self, x: Tensor, y: Tensor, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
        return x, y

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        return F.mse_loss(outputs[:, 0], targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 1 - (outputs[:, 0] - targets).square()  # standardized values have variance 1

    def finish(self, head: nn.Linear) -> None:
        with torch.no_grad():
            head.weight.mul_(self.scale)
            head.bias.mul_(self.scale).add_(self.mean)
