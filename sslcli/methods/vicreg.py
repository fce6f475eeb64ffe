"""VICReg: invariance, variance and covariance terms on two views; no negatives, no momentum encoder.

Bardes, Ponce & LeCun, "VICReg", ICLR 2022. https://arxiv.org/abs/2105.04906
B batch of this process, N global batch, P projection width. The hinge on the standard deviation of each dimension prevents
collapse. Each view is a forward pass of its own. Variance and covariance are those of the global batch, unbiased. Deviations from
the authors' code: head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import covariance, off_diagonal, spread


class VICReg(Method):
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        proj_dim: Width = "auto",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        self.expander = mlp(self.backbone.dim, width, width, width)  # Sec. 4.2: batch norm and ReLU after the first two
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.expander(self.backbone(x1)), self.expander(self.backbone(x2))  # (B, P)
        terms = vicreg_terms(z1, z2)
        loss = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()  # eq. (6)
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z1)}


@full_precision
def vicreg_terms(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    """The three terms for (B, P) embeddings.

    `invariance`, eq. (5): the squared distance of the views, averaged over P too as in the authors' code (the paper
    sums over P).
    `variance`, eqs. (1), (2): hinge loss of 1 minus each dimension's standard deviation (eps 1e-4), averaged over the views as
    in the code.
    `covariance`, eqs. (3), (4): the sum of squared off-diagonal covariances over P, summed over the two views.
    """
    invariance = F.mse_loss(z1, z2)
    g1, g2 = gather(z1), gather(z2)  # (N, P)
    hinge = [F.relu(1 - (g.var(dim=0) + 1e-4).sqrt()).mean() for g in (g1, g2)]
    off_diagonals = [off_diagonal(covariance(g)).square().sum() / g.shape[1] for g in (g1, g2)]
    return {
        "invariance": invariance,
        "variance": (hinge[0] + hinge[1]) / 2,
        "covariance": off_diagonals[0] + off_diagonals[1],
    }
