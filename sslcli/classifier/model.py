"""A linear layer on features with the temperature of its probabilities, and a reference of training features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from sslcli.classifier.reference import Reference
from sslcli.runs import Record

Evaluator = Literal["probe", "finetune", "zeroshot"]


@dataclass(frozen=True)
class Classifier:
    """What an evaluator fitted to the first draw of labels, or the vectors of the names of classes.

    evaluator: the evaluator; zeroshot: nothing is fitted. weight (K, d), bias (K,): of features as the backbone gives them.
    classes: the names of the K outputs; empty for the layer of a value, whose K is 1. reference: None where nothing is fitted.
    temperature: what logits are divided by. backbone: the fine-tuned one; None for the encoder of the run. protocol: how it was
    fitted and measured, in plain JSON types.
    """

    evaluator: Evaluator
    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...]
    reference: Reference | None
    temperature: float = 1.0
    backbone: nn.Module | None = None
    protocol: Record = field(default_factory=dict)

    def __post_init__(self) -> None:
        outputs, dim = self.weight.shape
        assert self.bias.shape == (outputs,), (self.weight.shape, self.bias.shape)
        assert outputs == (len(self.classes) or 1), (outputs, self.classes)
        if self.reference is not None:
            assert self.reference.features.shape[1] == dim, (self.reference.features.shape, dim)

    @property
    def predicts_value(self) -> bool:
        """Whether it predicts a value, not a class."""
        return not self.classes

    def outputs(self, z: Tensor) -> Tensor:
        """Logits (n, K), or values (n, 1), float64, of features (n, d) on the CPU."""
        return torch.addmm(self.bias.double(), z.double(), self.weight.double().T)

    def probabilities(self, z: Tensor) -> Tensor:
        """(n, K) float64: the softmax of the logits divided by the temperature."""
        return torch.softmax(self.outputs(z) / self.temperature, dim=1)
