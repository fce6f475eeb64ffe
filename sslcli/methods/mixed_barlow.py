"""Mixed Barlow Twins: Barlow Twins whose embedding of a mixture of two samples is held to the mixture of their embeddings.

Bandara, De Melo & Patel, "Guarding Barlow Twins Against Overfitting with Mixed Samples", 2023. https://arxiv.org/abs/2312.02151
B batch of this process, N global batch, P projection width. Mixtures of the first views with the second views of other samples
enlarge a small data set, on which Barlow Twins learns dimensions that are decorrelated by noise. Statistics and mixtures are those
of the global batch. Deviations from the authors' code: embeddings are standardized as in `barlow_twins`; mixtures are a function
of the step; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.cross_correlation import barlow_terms, standardize
from sslcli.nn.dist import gather, rank, world_size
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter


class MixedBarlow(Method):
    requires = frozenset({"views", "continuous"})
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        proj_dim: Width = "auto",
        redundancy: float = 1 / 128,
        mixing: float = 4.0,
        scale: float = 0.1,
    ):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        self.projector = mlp(self.backbone.dim, width, width, width)
        self.redundancy, self.mixing, self.scale = redundancy, mixing, scale
        self.clock = StepCounter()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        share, partner = mixture(self.clock.now(), len(x1), x1)
        mixed = share * x1 + (1 - share) * gather(x2)[partner]
        z1, z2, zm = (self.projector(self.backbone(x)) for x in (x1, x2, mixed))  # (B, P)
        terms = barlow_terms(z1, z2) | {"mixing": mixing_loss(z1, z2, zm, share, partner)}
        loss = terms["invariance"] + self.redundancy * (terms["redundancy"] + self.mixing * terms["mixing"])  # eq. (7)
        return {"loss": self.scale * loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z1)}

    def after_step(self, progress: float) -> None:
        self.clock.tick()


def mixture(step: int, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the first views, uniform in [0, 1), and for each of this process's `count` samples the row (B,) of its partner
    in the global batch: a permutation of the batch. A function of the step, on the device of `like`."""
    generator = torch.Generator().manual_seed(0x3B71 + step)
    share = torch.rand((), generator=generator).to(like.device, like.dtype, non_blocking=True)
    partner = torch.randperm(count * world_size(), generator=generator)[rank() * count :][:count]
    return share, partner.to(like.device, non_blocking=True)


@full_precision
def mixing_loss(z1: Tensor, z2: Tensor, zm: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """Eqs. (4) to (6) for embeddings (B, P) of both views and of the mixtures: the squared differences of the cross-correlation of
    the mixtures with each view and the mixture of the cross-correlations, summed over the P x P entries and both views.

    All are standardized over the global batch. share, partner: those of the mixtures (see `mixture`)."""
    all1, all2, mixed = (standardize(gather(z)) for z in (z1, z2, zm))  # (N, P)
    share = share.to(all1.dtype)
    excess = mixed - share * all1 - (1 - share) * all2[gather(partner)]  # (N, P)
    return sum(((excess.T @ z / len(z)).square().sum() for z in (all1, all2)), start=torch.zeros_like(share))
