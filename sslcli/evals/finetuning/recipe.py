"""Settings of a training with labels, and its length for a number of labeled samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sslcli.errors import RequestError
from sslcli.evals.classifier.class_weight import ClassWeight

ROWS = 32  # at least, in a batch: fewer labeled samples are each seen in several views at once, for batch norm's sake


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, named as the keys of `finetune`. Raises RequestError for values out of range."""

    epochs: int = 50
    min_steps: int = 300
    max_steps: int | None = None
    batch_size: int = 64
    lr: float | list[float] = 1e-3
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    augment: str = "weak+global"
    class_weight: ClassWeight = None

    def __post_init__(self) -> None:
        def need(name: str, right: bool, wanted: str, example: object) -> None:
            if not right:
                text = f"evaluator.{name}={getattr(self, name)}: expected {wanted}"
                raise RequestError(text, f"evaluator.{name}={example}")

        for name, least in (("epochs", 0), ("min_steps", 1), ("batch_size", 2)):
            need(name, getattr(self, name) >= least, f"an integer of at least {least}", getattr(Recipe, name))
        if self.max_steps is not None:
            wanted = f"null, or an integer of at least evaluator.min_steps ({self.min_steps})"
            need("max_steps", self.max_steps >= self.min_steps, wanted, "null")
        rates = self.rates
        need("lr", bool(rates) and all(0 < r < math.inf for r in rates), "a number above 0, or a list of them", 0.001)
        for name in ("weight_decay", "mixup", "cutmix"):
            need(name, 0 <= getattr(self, name) < math.inf, "0 or more", getattr(Recipe, name))
        need("layer_decay", 0 < self.layer_decay <= 1, "a factor above 0 and at most 1", 0.75)
        need("label_smoothing", 0 <= self.label_smoothing < 1, "0 or more and below 1", 0.1)

    @property
    def kinds(self) -> list[str]:
        """Of views: each sample of a batch is seen in all of them."""
        return [kind.strip() for kind in self.augment.split("+")]

    @property
    def rates(self) -> list[float]:
        return list(self.lr) if isinstance(self.lr, (list, tuple)) else [self.lr]


@dataclass(frozen=True)
class Length:
    """Length of a training on n labeled samples."""

    batch: int  # samples of a step: near the requested size, so that an epoch leaves hardly any out
    views: int  # of each kind of each sample in it
    steps: int
    precision: str = "fp32"  # of the forward pass of the backbone

    @classmethod
    def of(cls, recipe: Recipe, n: int) -> Length:
        kinds = len(recipe.kinds)
        batch = n // max(1, round(n * kinds / recipe.batch_size))
        steps = max(steps_of_epochs(recipe, n, batch), recipe.min_steps)
        return cls(
            batch, -(-ROWS // (batch * kinds)), steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        )


def steps_of_epochs(recipe: Recipe, n: int, batch: int) -> int:
    """The steps of `epochs` on n labeled samples, each of which is seen in all kinds of views in a step."""
    return recipe.epochs * (n // batch) // len(recipe.kinds)


def length_notes(recipe: Recipe, n: int, length: Length) -> list[str]:
    """Where `min_steps` makes a training on n labeled samples longer than `epochs`, a sentence that says so."""
    fewer = steps_of_epochs(recipe, n, length.batch)
    if fewer >= length.steps:
        return []
    return [f"{length.steps:,} steps (evaluator.min_steps); evaluator.epochs={recipe.epochs} would be {fewer:,}"]
