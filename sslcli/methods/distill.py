"""Distillation: a small backbone learns to say what a trained one says of the same view, through a linear layer.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015. https://arxiv.org/abs/1412.6550 (eq. (3): regression through a layer
that is thrown away)
Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022. https://arxiv.org/abs/2106.05237
(teacher and student see the same augmented view)
B batch, D teacher's width. The teacher is another run's frozen backbone (method.teacher=RUN); no labels. Deviations: the
paper's hint is a map in the middle of a network, here it is the vector at its end; every feature of the teacher is
standardised over the batch (Ranzinger et al., "PHI-S", 2024, say why: features differ in scale by orders of magnitude), so
that 1 is the loss of a student that knows nothing but the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Encoder, Method
from sslcli.nn.precision import full_precision


class Distill(Method):
    def __init__(self, backbone: nn.Module, teacher: Encoder):
        super().__init__(backbone)
        self.teacher = teacher
        self.standardise = nn.BatchNorm1d(teacher.dim, affine=False)
        self.projector = nn.Linear(self.backbone.dim, teacher.dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "global", "weak", "clean")
        with torch.no_grad():
            target = self.standardise(self.teacher(x))  # (B, D)
        return {"loss": regression(self.projector(self.backbone(x)), target)}

    def details(self) -> dict[str, str]:
        return {
            "projector": f"{self.backbone.dim}-{self.teacher.dim}",
            "teacher": f"{self.teacher.dim} features, frozen",
        }


@full_precision
def regression(predicted: Tensor, target: Tensor) -> Tensor:
    """FitNets, eq. (3), as a mean over B and D: the squared error of (B, D) predictions."""
    return F.mse_loss(predicted, target)
