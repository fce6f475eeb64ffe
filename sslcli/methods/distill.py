"""Feature distillation: mean squared error between a linear projection of the student and a frozen teacher's features.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015. https://arxiv.org/abs/1412.6550 (eq. (3): regression through a layer
that is discarded)
Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022. https://arxiv.org/abs/2106.05237
(teacher and student see the same augmented view)
B batch, D teacher's width. The teacher is the frozen backbone of another run (method.teacher=RUN); no labels. Deviations: the
paper's hint is an intermediate feature map, here it is the final feature vector; each feature of the teacher is standardized over
the batch, since features differ in scale by orders of magnitude (Ranzinger et al., "PHI-S", 2024), so that a student that
predicts the mean has loss 1.
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
        return {"loss": regression_loss(self.projector(self.backbone(x)), target)}

    def details(self) -> dict[str, str]:
        return {
            "projector": f"{self.backbone.dim}-{self.teacher.dim}",
            "teacher": f"{self.teacher.dim} features, frozen",
        }


@full_precision
def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """FitNets, eq. (3), as a mean over B and D: mean squared error of (B, D) predictions."""
    return F.mse_loss(predicted, target)
