"""TiCo: cosine distance to an EMA teacher's projection plus a covariance contrast against past embeddings.

Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation Learning",
2022. https://arxiv.org/abs/2206.10698
B batch of this process, N global batch, P projection width. The penalty z^T C z, with C a moving average of the second moment,
prevents collapse. Deviations from the paper's pseudo-code: both directions are computed, as in BYOL; C is updated after the
optimizer step; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class TiCo(Method):
    compares = True
    covariance: Tensor
    sums: Tensor
    count: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        beta: float = 0.9,
        rho: float = 8.0,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 4096)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width)
        self.teacher = Teacher(backbone, self.projector)
        self.register_buffer("covariance", torch.zeros(width, width))  # C
        self.register_buffer("sums", torch.zeros(width, width), persistent=False)  # over the batches of a step
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.beta, self.rho, self.tau, self.tau_end = beta, rho, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = (F.normalize(self.projector(self.backbone(x)), dim=1) for x in (x1, x2))  # (B, P)
        t1, t2 = self.teacher(x1), self.teacher(x2)  # no gradient
        moment = second_moment(z1, z2)
        c = self.beta * self.covariance + (1 - self.beta) * moment
        one, two = tico_terms(z1, t2, c), tico_terms(z2, t1, c)
        terms = {name: (one[name] + two[name]) / 2 for name in one}
        if self.training and torch.is_grad_enabled():
            self.sums.add_(moment.to(self.sums.dtype))
            self.count.add_(1)
        loss = terms["invariance"] + self.rho * terms["covariance"]
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z1)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.covariance.lerp_(self.sums / self.count.clamp(min=1), (1 - self.beta) * (self.count > 0))  # eq. (5)
        self.sums.zero_()
        self.count.zero_()
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.projector, momentum=momentum)


@torch.no_grad()
@full_precision
def second_moment(z1: Tensor, z2: Tensor) -> Tensor:
    """(P, P): the mean of z z^T over both views (B, P) of the global batch."""
    both = torch.cat([z1, z2])
    return all_reduce_mean(both.T @ both / len(both))


@full_precision
def tico_terms(z: Tensor, target: Tensor, covariance: Tensor) -> dict[str, Tensor]:
    """`invariance`: 1 minus the cosine of z and target (B, P); `covariance`: z^T C z, averaged over B. z has unit
    norm; target and C (P, P) are detached."""
    cosine = (z * F.normalize(target.detach(), dim=1)).sum(dim=1).mean()
    penalty = ((z @ covariance.detach().to(z.dtype)) * z).sum(dim=1).mean()
    return {"invariance": 1 - cosine, "covariance": penalty}
