"""W-MSE: squared distance of whiten, normalized embeddings of two views; no negatives, no momentum encoder.

Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021. https://arxiv.org/abs/2007.06346
B batch of this process, N global batch, P projection width. Whitening prevents collapse. Each view is whitened in random
sub-batches of the global batch (Sec. 3.1). Deviations from the authors' code: a fraction `eps` of the mean variance is added to
the diagonal of the covariance, so that a sub-batch hardly larger than P can be inverted; sub-batches are of nearly equal size for
any N; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import covariance, spread


class WMSE(Method):
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: int = 32,
        part: int = 128,
        eps: float = 1e-3,
    ):
        super().__init__(backbone)
        if proj_dim < 1 or part < 2 or eps <= 0:
            raise ValueError("proj_dim must be at least 1, part at least 2, eps above 0")
        self.projector = mlp(self.backbone.dim, self.head_width(hidden_dim, 1024), proj_dim)
        self.part, self.eps = part, eps

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        order = gather(batch.uniform("parts")).argsort(stable=True)  # (N,)
        return {"loss": whitening_mse(z1, z2, order, self.part, self.eps), "spread": spread(z1)}

    def details(self) -> dict[str, str]:
        return {"whitening": f"in sub-batches of about {self.part} samples"}


@full_precision
def whitening_mse(z1: Tensor, z2: Tensor, order: Tensor, part: int, eps: float) -> Tensor:
    """Eq. (3) with normalized embeddings, Sec. 3.2: 2 - 2 cos of the whitened views (B, P), averaged over the global batch,
    whose samples are split into sub-batches in the order `order` (N,)."""
    all1, all2 = gather(z1), gather(z2)  # (N, P)
    losses = []
    for ids in order.tensor_split(max(1, len(order) // part)):
        a, b = (F.normalize(whiten(z[ids], eps), dim=1) for z in (all1, all2))
        losses.append((a - b).square().sum(dim=1))
    return torch.cat(losses).mean()


def whiten(z: Tensor, eps: float) -> Tensor:
    """Eq. (4): (n, P) with mean 0 and covariance (nearly) the identity: L^-1 (z - mean), with L L^T the covariance (Cholesky)."""
    centered = z - z.mean(dim=0)
    sigma = covariance(z)
    ridge = eps * sigma.diagonal().mean() + torch.finfo(z.dtype).tiny ** 0.5
    factor, failed = torch.linalg.cholesky_ex(sigma + ridge * torch.eye(len(sigma), device=z.device, dtype=z.dtype))
    # NaN where it failed: the loop skips the step and reports it; raising here would synchronize with the device
    factor = torch.where(failed == 0, factor, torch.nan)
    return torch.linalg.solve_triangular(factor, centered.T, upper=False).T
