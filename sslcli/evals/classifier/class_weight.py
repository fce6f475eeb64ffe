"""Weights of the classes in the loss of a classifier: none, or inversely proportional to their numbers of samples."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.errors import RequestError

Balanced = Literal["balanced"]
ClassWeight = Balanced | None


def check_class_weight(class_weight: ClassWeight, dataset: Dataset) -> None:
    """RequestError for an unknown value, and for weights of classes where the data set has a value to predict."""
    if class_weight is None:
        return
    if class_weight not in get_args(Balanced):
        raise RequestError(
            f"evaluator.class_weight={class_weight}: expected balanced or null", "evaluator.class_weight=balanced"
        )
    if dataset.task == "value":
        raise RequestError(
            f"evaluator.class_weight={class_weight} needs classes, and the data set has a value to predict",
            "evaluator.class_weight=null",
        )


def class_weights(y: Tensor, classes: int, class_weight: ClassWeight) -> Tensor | None:
    """The weight (K,) of each of K `classes`, by the labels y (n,) in 0..K-1 of the labeled training samples; None for no weights.

    `balanced` is scikit-learn's definition, n / (K * count_k): the classes have equal shares of the loss, and the mean weight of
    a sample is 1, so that the regularization strength C and the learning rate keep their meaning."""
    if class_weight is None:
        return None
    counts = y.bincount(minlength=classes).double()
    return len(y) / (classes * counts.clamp(min=1))


def weight_details(weights: Tensor | None, classes: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """The weight of each class by its name, of weights (K,) of the classes (K,); {} without weights."""
    if weights is None:
        return {}
    shown = (names[c] if c < len(names) else str(c) for c in classes.tolist())
    return dict(zip(shown, [round(w, 6) for w in weights.tolist()], strict=True))
