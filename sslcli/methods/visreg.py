"""VISReg: invariance plus regularization of mean, standard deviation and Gaussian shape of the embeddings; no teacher.

Wu et al., "VISReg", 2026. https://arxiv.org/abs/2606.02572
B batch of this process, N global batch, P projection width, V views, the first G of them global, M slices. The regularization
prevents collapse. Statistics are those of the global batch, the paper's those of each device. Deviations: the quantiles are
scaled to standard deviation 1 (those of 6 samples have .69, and the shape term, which ignores the scale, would contract a small
batch to a point); slices are a function of the step; head widths follow the backbone (`auto`).
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


class VISReg(Method):
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: int = 64,
        weight: float = 0.6,
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
        terms = visreg_terms(z, len(global_views), random_directions(self.clock.now(), z.shape[2], self.slices, z))
        regularization = terms["centre"] + terms["scale"] + terms["shape"]  # Algorithm 1, weights 1
        loss = (1 - self.weight) * terms["invariance"] + self.weight * regularization
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        self.clock.tick()

    def details(self) -> dict[str, str]:
        return {"slices": str(self.slices)}


@full_precision
def visreg_terms(z: Tensor, count: int, slices: Tensor) -> dict[str, Tensor]:
    """Terms of V views (V, B, P), the first `count` of them global, along unit columns `slices` (P, M); each averaged over views.

    `invariance`: the squared distance to the mean of the global views. `centre`, eq. (6): the squared mean of each dimension.
    `scale`, eq. (1): (1 - standard deviation)^2. `shape`, eqs. (2), (5): the squared 2-Wasserstein distance of each slice of the
    embeddings, divided by their detached standard deviation, to the quantiles of a standard normal.
    """
    all_z = torch.stack([gather(one) for one in z])  # (V, N, P)
    mean = all_z.mean(dim=1, keepdim=True)
    std = (all_z - mean).square().mean(dim=1, keepdim=True).add(1e-12).sqrt()
    quantiles = normal_quantiles(all_z.shape[1]).to(z)
    sorted_ = ((all_z - mean) / (std.detach() + 1e-4) @ slices.to(z.dtype)).sort(dim=1).values  # (V, N, M)
    return {
        "invariance": invariance_loss(z, count),
        "centre": mean.square().mean(),
        "scale": (1 - std).square().mean(),
        "shape": (sorted_ - quantiles[:, None]).square().mean(),
    }


def normal_quantiles(n: int) -> Tensor:
    """(n,) float64: quantiles of a standard normal at i / (n + 1), scaled to standard deviation 1."""
    quantiles = torch.special.ndtri(torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))
    return quantiles / quantiles.square().mean().sqrt()
