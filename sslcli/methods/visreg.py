"""VISReg: views agree, and embeddings have mean 0, deviation 1 and, once scaled, the shape of a Gaussian.

Wu et al., "VISReg", 2026. https://arxiv.org/abs/2606.02572
B batch of this process, N global batch, P projection width, V views, the first G of them global, M slices. Statistics are those of
the global batch, where the paper's are of each device's. Deviations: the quantiles are scaled to deviation 1 (those of 6 samples
have .69, and the shape term, blind to the scale, would pull a small batch into one point); slices are a function of the step;
head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.projections import directions, invariance
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
            raise ValueError("weight is a share between 0 and 1, slices is 1 or more")
        hidden = self.head_width(hidden_dim, 2048)
        self.projector = mlp(self.backbone.dim, hidden, hidden, proj_dim)
        self.clock = StepCounter()
        self.weight, self.slices = weight, slices

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        seen, small = batch.crops()
        z = torch.stack([self.projector(self.backbone(x)) for x in seen + small])  # (V, B, P)
        terms = visreg_terms(z, len(seen), directions(self.clock.now(), z.shape[2], self.slices, z))
        regular = terms["centre"] + terms["scale"] + terms["shape"]  # Algorithm 1, weights 1
        loss = (1 - self.weight) * terms["invariance"] + self.weight * regular
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        self.clock.tick()

    def details(self) -> dict[str, str]:
        return {"slices": str(self.slices)}


@full_precision
def visreg_terms(z: Tensor, count: int, slices: Tensor) -> dict[str, Tensor]:
    """Of V views (V, B, P), the first `count` global, and unit columns (P, M); each the mean over views.

    `invariance`: the squared distance to the mean of the global views. `centre`, eq. (6): the squared mean of each dimension.
    `scale`, eq. (1): (1 - standard deviation)^2. `shape`, eqs. (2), (5): the squared 2-Wasserstein distance of each slice, of
    embeddings divided by their deviation (which it does not teach), to a standard normal's quantiles.
    """
    everything = torch.stack([gather(one) for one in z])  # (V, N, P)
    mean = everything.mean(dim=1, keepdim=True)
    std = (everything - mean).square().mean(dim=1, keepdim=True).add(1e-12).sqrt()
    quantiles = normal_quantiles(everything.shape[1]).to(z)
    sorted_ = ((everything - mean) / (std.detach() + 1e-4) @ slices.to(z.dtype)).sort(dim=1).values  # (V, N, M)
    return {
        "invariance": invariance(z, count),
        "centre": mean.square().mean(),
        "scale": (1 - std).square().mean(),
        "shape": (sorted_ - quantiles[:, None]).square().mean(),
    }


def normal_quantiles(n: int) -> Tensor:
    """(n,) float64: of a standard normal at i / (n + 1), scaled to deviation 1."""
    quantiles = torch.special.ndtri(torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))
    return quantiles / quantiles.square().mean().sqrt()
