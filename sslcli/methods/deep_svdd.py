"""Deep SVDD: squared distance of normal samples' features to one center, for anomaly detection.

Ruff et al., "Deep One-Class Classification", ICML 2018. https://proceedings.mlr.press/v80/ruff18a.html
B batch. Meant as one task beside a self-supervised one (method=multitask) on normal samples (train.classes): alone, a constant
feature vector is optimal. `anomaly_score` is the distance to the center, `sslcli eval anomaly` evaluates it. Deviations from the
paper: features are L2-normalized, so that neither a shrinking scale nor a last layer without bias matters (their Sec. 3.3); the
center is the mean over the first epoch of training (theirs: over a pass of the untrained network), and fixed afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, DataInfo, Method
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class DeepSVDD(Method):
    total: Tensor
    steps: Tensor
    sums: Tensor
    count: Tensor

    def __init__(self, backbone: nn.Module, data: DataInfo, nu: float | None = None):
        super().__init__(backbone)
        if nu is not None and not 0 < nu <= 1:
            raise ValueError(f"nu must be above 0 and at most 1, or null, got {nu}")
        self.nu, self.first_epoch = nu, max(1, data.steps_per_epoch)
        dim = self.backbone.dim
        self.register_buffer("total", torch.zeros(dim))  # sum over the first epoch's steps; its direction is the center
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(dim), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        z = F.normalize(self.backbone(x), dim=1)  # (B, dim)
        mean = all_reduce_mean(z.mean(dim=0))
        center = torch.where(self.steps > 0, self.total.to(z.dtype), mean)
        if self.training and torch.is_grad_enabled():
            self.sums.add_(mean.to(self.sums.dtype))
            self.count.add_(1)
        distances = squared_distance(z, center)
        loss = distances.mean() if self.nu is None else soft_boundary_loss(distances, self.nu)
        return {"loss": loss, "distance": distances.detach().mean(), "spread": spread(z)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        update = (self.steps < self.first_epoch) & (self.count > 0)
        self.total.add_(update * self.sums / self.count.clamp(min=1))
        self.steps.add_(update)
        self.sums.zero_()
        self.count.zero_()

    def anomaly_score(self, x: Tensor) -> Tensor:
        return squared_distance(F.normalize(self.backbone(x), dim=1), self.total)

    def details(self) -> dict[str, str]:
        return {
            "boundary": "hard: all samples are normal" if self.nu is None else f"soft, {self.nu:.0%} may be outside"
        }


@full_precision
def squared_distance(z: Tensor, center: Tensor) -> Tensor:
    """Eq. (4): |z - c|^2 of unit vectors z (B, D) to the direction of the center (D,), which is detached; in [0, 4]."""
    return (z - F.normalize(center.detach().to(z.dtype), dim=0)).square().sum(dim=1)


@full_precision
def soft_boundary_loss(distances: Tensor, nu: float) -> Tensor:
    """Eq. (3): R^2 + 1 / nu times the mean excess over R^2, with R^2 the (1 - nu) quantile of the batch (their line search,
    Sec. 3.3)."""
    radius = distances.detach().quantile(1 - nu)
    return radius + (distances - radius).clamp(min=0).mean() / nu
