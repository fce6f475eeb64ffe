"""W-MSE: views agree after whitening, which leaves embeddings no way to collapse.

Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021. https://arxiv.org/abs/2007.06346
B batch of this process, N global batch, P projection width. Each view is whitened in random parts of the global batch (Sec.
3.1). Deviations from the authors' code: a share `eps` of the mean variance is added to the diagonal of the covariance, so
that a part that is hardly larger than P can be inverted; parts are of nearly equal size, whatever N; head widths follow the
backbone (`auto`).
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
            raise ValueError("proj_dim is 1 or more, part 2 or more, eps above 0")
        self.projector = mlp(self.backbone.dim, self.head_width(hidden_dim, 1024), proj_dim)
        self.part, self.eps = part, eps

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        order = gather(batch.uniform("parts")).argsort(stable=True)  # (N,)
        return {"loss": whitened_loss(z1, z2, order, self.part, self.eps), "spread": spread(z1)}

    def details(self) -> dict[str, str]:
        return {"whitened": f"in parts of about {self.part} samples"}


@full_precision
def whitened_loss(z1: Tensor, z2: Tensor, order: Tensor, part: int, eps: float) -> Tensor:
    """Eq. (3) with normalised embeddings, Sec. 3.2: 2 - 2 cos of the whitened views (B, P), the mean over the global batch,
    of which `order` (N,) is a random order."""
    all1, all2 = gather(z1), gather(z2)  # (N, P)
    losses = []
    for ids in order.tensor_split(max(1, len(order) // part)):
        a, b = (F.normalize(whitened(z[ids], eps), dim=1) for z in (all1, all2))
        losses.append((a - b).square().sum(dim=1))
    return torch.cat(losses).mean()


def whitened(z: Tensor, eps: float) -> Tensor:
    """Eq. (4): (n, P) with mean 0 and covariance (nearly) 1: L^-1 (z - mean), with L L^T the Cholesky factors of the covariance."""
    centred = z - z.mean(dim=0)
    sigma = covariance(z)
    ridge = eps * sigma.diagonal().mean() + torch.finfo(z.dtype).tiny ** 0.5
    factor, failed = torch.linalg.cholesky_ex(sigma + ridge * torch.eye(len(sigma), device=z.device, dtype=z.dtype))
    # NaN where it failed: the loop skips the step and tells; raising here would wait for the device
    factor = torch.where(failed == 0, factor, torch.nan)
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T
