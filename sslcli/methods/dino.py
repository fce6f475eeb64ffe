"""DINO: cross-entropy between a student's and an EMA teacher's soft assignments of different crops.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021. https://arxiv.org/abs/2104.14294
B batch, P bottleneck width, K prototypes, V views, the first G of them global. Centering and sharpening the teacher prevent
collapse. Works on the backbone's feature vector, of a CNN or of a ViT (the paper's is the class token: backbone.pool=cls). Each
view is a forward pass of its own. The teacher is evaluated, as in the paper. Deviations from the authors' code:
- Temperature, momentum and the frozen last layer follow the progress of the run, theirs follow epochs.
- The weight decay is constant, and the global gradient norm is clipped (train.clip), not that of each tensor.
- Directions of the last layer are initialized from a normal; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.centering import LinearWarmup, centered_softmax
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, gelu_head
from sslcli.nn.prototypes import Prototypes, cross_view_loss, effective_prototypes
from sslcli.nn.running_mean import RunningMean
from sslcli.nn.stats import spread


class DINO(Method):
    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        norm: bool = True,
        prototypes: int = 1024,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_end: float = 0.04,
        warmup: float = 0.3,
        centre_momentum: float = 0.9,
        frozen: float = 0.01,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        self.head = gelu_head(self.backbone.dim, hidden, hidden, width, norm=norm)  # App. C
        self.prototypes = Prototypes(width, prototypes, frozen)
        self.teacher = Teacher(backbone, self.head, self.prototypes)
        self.centre = RunningMean(prototypes)  # eq. (4)
        self.teacher_temperature = LinearWarmup(teacher_temperature, teacher_temperature_end, warmup)
        self.temperature, self.centre_momentum, self.tau, self.tau_end = temperature, centre_momentum, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        z = [self.head(self.backbone(x)) for x in global_views + local_views]  # V x (B, P)
        student = torch.stack([self.prototypes(one) for one in z])  # (V, B, K)
        teacher = torch.stack([self.teacher(x) for x in global_views])  # (G, B, K), no gradient
        targets = centered_softmax(teacher, self.centre.value, self.teacher_temperature.value)
        if self.training and torch.is_grad_enabled():
            self.centre.observe(teacher.flatten(0, 1))
        loss = cross_view_loss(student / self.temperature, targets)  # eq. (3), the mean over pairs as in the code
        return {"loss": loss, "used": effective_prototypes(targets[0]), "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.head, self.prototypes, momentum=momentum)
        self.centre.update(self.centre_momentum)  # eq. (4)
        self.prototypes.after_step(progress)
        self.teacher_temperature.after_step(progress)

    @property
    def eval_backbone(self) -> nn.Module:
        return self.teacher.parts[0]

    def assign(self, x: Tensor) -> Tensor:
        """Eq. (1) of the teacher, with centering and sharpening."""
        return centered_softmax(self.teacher(x), self.centre.value, self.teacher_temperature.value)

    def details(self) -> dict[str, str]:
        return {"prototypes": str(len(self.prototypes.weight))}
