"""A classifier as an evaluator hands it over to be kept in the run folder, with its confidence on test samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.classifier.model import Classifier
from sslcli.evals.metrics import calibration


@dataclass(frozen=True)
class Confidence:
    """Of n test samples: the probability of the predicted class, as fitted and after temperature scaling, and which are right."""

    fitted: Tensor
    scaled: Tensor
    right: Tensor

    @classmethod
    def of(cls, logits: Tensor, right: Tensor, temperature: float) -> Confidence:
        """`logits` (n, K), `right` (n,) bool."""
        fitted, scaled = (torch.softmax(logits / t, dim=1).amax(dim=1) for t in (1.0, temperature))
        return cls(fitted, scaled, right)

    @classmethod
    def join(cls, parts: Sequence[Confidence]) -> Confidence:
        return cls(*(torch.cat([getattr(p, key) for p in parts]) for key in ("fitted", "scaled", "right")))

    def metrics(self) -> dict[str, float]:
        """Expected calibration error: `ece` after temperature scaling, `ece_uncalibrated` before."""
        column = torch.where(self.right, 0, -1)
        named = {"ece": self.scaled, "ece_uncalibrated": self.fitted}
        return {name: calibration.ece(confidence[:, None], column) for name, confidence in named.items()}


@dataclass(frozen=True)
class FittedClassifier:
    """The classifier of the first draw of labels.

    make: the classifier, with the training features that it is kept with: these take a while, and few callers need them.
    confidence: on the test samples; None for a value, and for a classifier that was not calibrated.
    temperature: what the temperature is and why; "" where confidence is None.
    """

    make: Callable[[], Classifier]
    confidence: Confidence | None = None
    temperature: str = ""

    def metrics(self) -> dict[str, float]:
        return {} if self.confidence is None else self.confidence.metrics()
