"""BYOL: normalized squared error between a prediction and an EMA teacher's projection of the other view; no negatives.

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020. https://arxiv.org/abs/2006.07733
B batch, P projection width. The predictor and the momentum encoder prevent collapse. Each view is a forward pass of its own.
The loss is the *sum* of both directions (eq. (2) and below): their mean would halve the learning rate. The online backbone is
evaluated. Deviations from the authors' code: head widths follow the backbone (`auto`).
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import negative_cosine_similarity
from sslcli.nn.stats import spread


class BYOL(Method):
    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 4096)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width)  # Sec. 3.3: linear, batch norm, ReLU, linear
        self.predictor = mlp(width, hidden, width)
        self.teacher = Teacher(backbone, self.projector)
        self.tau, self.tau_end = tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        q1, q2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        t1, t2 = self.teacher(x1), self.teacher(x2)  # (B, P), no gradient
        return {"loss": byol_loss(q1, t2) + byol_loss(q2, t1), "spread": spread(z1)}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)  # Sec. 3.3: 1 - (1 - tau)(cos(pi k / K) + 1) / 2
        self.teacher.update(self.backbone, self.projector, momentum=momentum)


def byol_loss(q: Tensor, t: Tensor) -> Tensor:
    """Eq. (2): mean squared distance of normalized (B, P) predictions and targets, 2 - 2 cos; in [0, 4]."""
    return 2 + 2 * negative_cosine_similarity(q, t)
