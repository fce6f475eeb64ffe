"""Settings of a training with labels, and its length for a number of labeled samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sslcli.console import plural
from sslcli.errors import RequestError
from sslcli.evals.classifier.class_weight import ClassWeight

EPOCHS, MIN_STEPS = 50, 300  # of a training whose length is not set: few samples need more passes
ROWS = 32  # at least, in a batch: fewer labeled samples are each seen in several views at once, for batch norm's sake


class Passes:
    """The length of a training with labels, as the keys `epochs` and `min_steps` give it.

    `epochs` None: 50, and at least 300 steps. A given number of epochs is not exceeded unless `min_steps` is given too."""

    epochs: int | None
    min_steps: int | None

    @property
    def passes(self) -> int:
        """Epochs, given or not."""
        return EPOCHS if self.epochs is None else self.epochs

    @property
    def least_steps(self) -> int:
        """The minimum number of steps: the given one, and 1 where the epochs are given alone."""
        if self.min_steps is not None:
            return self.min_steps
        return MIN_STEPS if self.epochs is None else 1

    def check_length(self) -> None:
        """RequestError for a number of epochs or steps that is out of range, and for a training without a step."""
        if self.min_steps is not None and self.min_steps < 1:
            raise RequestError(
                f"evaluator.min_steps={self.min_steps}: expected null, or an integer of at least 1",
                "evaluator.min_steps=null",
            )
        if self.epochs is not None and self.epochs < (0 if self.min_steps else 1):
            wanted = "an integer of at least 0" if self.min_steps else "null, or an integer of at least 1"
            raise RequestError(f"evaluator.epochs={self.epochs}: expected {wanted}", f"evaluator.epochs={EPOCHS}")


@dataclass(frozen=True)
class Recipe(Passes):
    """Settings of a training, named as the keys of `finetune`. Raises RequestError for values out of range."""

    epochs: int | None = None
    min_steps: int | None = None
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

        self.check_length()
        need("batch_size", self.batch_size >= 2, "an integer of at least 2", Recipe.batch_size)
        if self.max_steps is not None:
            wanted = f"null, or an integer of at least {'1' if self.min_steps is None else 'evaluator.min_steps'}"
            need("max_steps", self.max_steps >= (self.min_steps or 1), wanted, "null")
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
        steps = max(steps_of_epochs(recipe, n, batch), recipe.least_steps)
        return cls(
            batch, -(-ROWS // (batch * kinds)), steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        )


def steps_of_epochs(recipe: Recipe, n: int, batch: int) -> int:
    """The steps of the epochs on n labeled samples, each of which is seen in all kinds of views in a step."""
    return recipe.passes * (n // batch) // len(recipe.kinds)


def describe_length(epochs: int, n: int, by_epochs: int, steps: int) -> str:
    """How long a training on n labeled samples is: `by_epochs` are the steps of its epochs, `steps` those that are taken."""
    asked = f"{plural(epochs, 'epoch')} of {plural(n, 'labeled sample')}"
    if by_epochs == steps or (by_epochs < 1 and steps == 1):
        return f"{plural(steps, 'step')}, {asked}"
    key = "evaluator.min_steps" if steps > by_epochs else "evaluator.max_steps"
    bound = "at least" if steps > by_epochs else "at most"
    return f"{plural(steps, 'step')}: {asked} are {by_epochs:,}, and {bound} {steps:,} are taken ({key})"


def length_notes(recipe: Recipe, n: int, length: Length) -> list[str]:
    """Where a training on n labeled samples has another length than its epochs, a sentence that says so."""
    by_epochs = steps_of_epochs(recipe, n, length.batch)
    return [] if by_epochs == length.steps else [describe_length(recipe.passes, n, by_epochs, length.steps)]
