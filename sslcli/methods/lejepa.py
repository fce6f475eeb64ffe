"""LeJEPA: invariance to views plus SIGReg, which makes embeddings an isotropic Gaussian; no teacher, no stop-gradient.

Balestriero & LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025.
https://arxiv.org/abs/2511.08544
B batch of this process, N global batch, P projection width, V views, the first G of them global, M slices. SIGReg prevents
collapse. Statistics are those of the global batch. Deviations from the authors' code: slices are a function of the step; head
widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.projections import invariance_loss, random_directions
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter

KNOTS, LIMIT = 17, 3.0  # quadrature of the integral over t from 0 to LIMIT; the integrand is even


class LeJEPA(Method):
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: int = 32,
        weight: float = 0.05,
        slices: int = 256,
    ):
        super().__init__(backbone)
        if not 0 < weight < 1 or slices < 1:
            raise ValueError("weight must be between 0 and 1, slices at least 1")
        hidden = self.head_width(hidden_dim, 2048)
        self.projector = mlp(self.backbone.dim, hidden, hidden, proj_dim)
        self.clock = StepCounter()
        self.weight, self.slices = weight, slices

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        z = torch.stack([self.projector(self.backbone(x)) for x in global_views + local_views])  # (V, B, P)
        invariance = invariance_loss(z, len(global_views))
        gaussianity = sigreg(z, random_directions(self.clock.now(), z.shape[2], self.slices, z))
        loss = (1 - self.weight) * invariance + self.weight * gaussianity
        return {"loss": loss, "invariance": invariance.detach(), "sigreg": gaussianity.detach(), "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        self.clock.tick()

    def details(self) -> dict[str, str]:
        return {"slices": str(self.slices)}


@full_precision
def sigreg(z: Tensor, slices: Tensor) -> Tensor:
    """SIGReg, Sec. 4: the Epps-Pulley statistic of (V, B, P) along unit columns (P, M), averaged over slices and views.

    N times the integral over t in [-3, 3] of |mean of exp(i t u) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by the trapezoid rule.
    """
    all_z = torch.stack([gather(one) for one in z])  # (V, N, P)
    t = torch.linspace(0, LIMIT, KNOTS, device=z.device, dtype=z.dtype)
    weights = torch.full_like(t, 2 * LIMIT / (KNOTS - 1))
    weights[0] = weights[-1] = LIMIT / (KNOTS - 1)
    normal = (-t.square() / 2).exp()
    angles = (all_z @ slices.to(z.dtype))[..., None] * t  # (V, N, M, T)
    real, imaginary = angles.cos().mean(dim=1), angles.sin().mean(dim=1)
    deviation = (real - normal).square() + imaginary.square()
    return all_z.shape[1] * (deviation * (weights * normal)).sum(dim=-1).mean()
