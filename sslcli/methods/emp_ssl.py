"""EMP-SSL: many crops of each sample are pulled to their mean, the coding rate of each batch of crops is maximized; no negatives.

Tong, Chen, Ma & LeCun, "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", 2023. https://arxiv.org/abs/2304.03977
V views, B batch of this process, N global batch, P projection width. The coding rate, which grows as the embeddings fill all
directions, prevents collapse. Statistics are those of the global batch. Deviations from the authors' code: each view is a forward
pass of its own, theirs is one pass of all views, whose batch norm mixes them; evaluations read the backbone's features of the
whole sample, theirs the first hidden layer of the head, averaged over 128 crops; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class EMPSSL(Method):
    min_loss = -math.inf  # the coding rate grows with the width
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        invariance: float = 200.0,
        epsilon: float = 0.2,
    ):
        super().__init__(backbone)
        if epsilon <= 0:
            raise ValueError(f"epsilon must be above 0, got {epsilon}")
        hidden = self.head_width(hidden_dim, 4096)
        self.projector = mlp(self.backbone.dim, hidden, hidden, self.head_width(proj_dim, 1024))
        self.invariance, self.epsilon = invariance, epsilon

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = torch.stack([self.projector(self.backbone(x)) for x in batch.many_views("global")])  # (V, B, P)
        z = F.normalize(z, dim=2)
        similarity, rate = similarity_to_mean(z), coding_rate(z, self.epsilon)
        loss = -rate - self.invariance * similarity  # eq. (4), minimized
        terms = {"similarity": similarity.detach(), "coding_rate": rate.detach()}
        return {"loss": loss, **terms, "spread": spread(z[0])}


@full_precision
def similarity_to_mean(z: Tensor) -> Tensor:
    """Cosine similarity of each view's embeddings and their mean over the views, averaged. z (V, B, P); in [-1, 1]."""
    return F.cosine_similarity(z, z.mean(dim=0), dim=2).mean()


@full_precision
def coding_rate(z: Tensor, epsilon: float) -> Tensor:
    """Eq. (2), total coding rate: 1/2 log det(I + P / (N epsilon) Z^T Z) with Z (N, P) the unit embeddings of one view in the
    global batch, averaged over the V views. z (V, B, P). `epsilon` is the paper's epsilon squared, as in the code.

    det(I + c Z^T Z) = det(I + c Z Z^T): the smaller matrix is used."""
    z = torch.stack([gather(one) for one in z])  # (V, N, P)
    gram = z @ z.mT if z.shape[1] < z.shape[2] else z.mT @ z
    identity = torch.eye(gram.shape[1], device=z.device, dtype=z.dtype)
    factor = torch.linalg.cholesky(identity + z.shape[2] / (z.shape[1] * epsilon) * gram)
    return factor.diagonal(dim1=1, dim2=2).log().sum(dim=1).mean()  # half of log det
