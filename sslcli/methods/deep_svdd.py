"""Deep SVDD: what is normal lies close to one centre.

Ruff et al., "Deep One-Class Classification", ICML 2018. https://proceedings.mlr.press/v80/ruff18a.html
B batch. Meant as one task beside a self-supervised one (method=multitask) on normal samples (train.classes): alone, one
point for everything would be its best answer. `anomaly_score` is the distance to the centre, `sslcli eval anomaly` measures
it. Deviations from the paper: embeddings are on the sphere, the backbone's vector of unit length, so that neither a
shrinking scale nor a last layer without bias is needed (their Sec. 3.3); the centre is the mean of what the first epoch of training
saw (theirs: of a pass of the untrained network), and stands still afterwards.
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
    held: Tensor
    count: Tensor

    def __init__(self, backbone: nn.Module, data: DataInfo, nu: float | None = None):
        super().__init__(backbone)
        if nu is not None and not 0 < nu <= 1:
            raise ValueError(f"nu is a share above 0 and at most 1, or null, not {nu}")
        self.nu, self.first_epoch = nu, max(1, data.steps_per_epoch)
        dim = self.backbone.dim
        self.register_buffer(
            "total", torch.zeros(dim)
        )  # of the first epoch's mean embeddings; its direction is the centre
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("held", torch.zeros(dim), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        z = F.normalize(self.backbone(x), dim=1)  # (B, dim)
        average = all_reduce_mean(z.mean(dim=0))
        centre = torch.where(self.steps > 0, self.total.to(z.dtype), average)
        if self.training and torch.is_grad_enabled():
            self.held.add_(average.to(self.held.dtype))
            self.count.add_(1)
        distances = distance(z, centre)
        loss = distances.mean() if self.nu is None else soft_boundary(distances, self.nu)
        return {"loss": loss, "distance": distances.detach().mean(), "spread": spread(z)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        seen = (self.steps < self.first_epoch) & (self.count > 0)
        self.total.add_(seen * self.held / self.count.clamp(min=1))
        self.steps.add_(seen)
        self.held.zero_()
        self.count.zero_()

    def anomaly_score(self, x: Tensor) -> Tensor:
        return distance(F.normalize(self.backbone(x), dim=1), self.total)

    def details(self) -> dict[str, str]:
        return {"boundary": "none: all are normal" if self.nu is None else f"soft, {self.nu:.0%} may lie outside"}


@full_precision
def distance(z: Tensor, centre: Tensor) -> Tensor:
    """Eq. (4): |z - c|^2 of unit vectors z (B, D) to the direction of the centre (D,), in [0, 4]; no gradient reaches it."""
    return (z - F.normalize(centre.detach().to(z.dtype), dim=0)).square().sum(dim=1)


@full_precision
def soft_boundary(distances: Tensor, nu: float) -> Tensor:
    """Eq. (3): R^2 + 1 / nu times the mean of what lies outside of R^2, with R^2 the (1 - nu) quantile of the batch (their
    line search, Sec. 3.3)."""
    radius = distances.detach().quantile(1 - nu)
    return radius + (distances - radius).clamp(min=0).mean() / nu
