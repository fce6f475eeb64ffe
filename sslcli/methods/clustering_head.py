"""Clustering head: two views of a sample belong to the same cluster, and all clusters are used alike (IIC).

Ji, Henriques & Vedaldi, "Invariant Information Clustering for Unsupervised Image Classification and Segmentation", ICCV
2019. https://arxiv.org/abs/1807.06653
B batch of this process, N global batch, K clusters. Alone it learns clusters and little else; it is meant as one task
beside a self-supervised one (method=multitask), whose backbone its gradient shapes. `assign` gives the clusters,
`sslcli eval cluster` measures them. Deviations from the authors' code: heads are trained together and not in turn, on the
same views; which head is believed is decided by a moving average of its loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather, mean
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread

REMEMBER = 0.99  # of the moving average of each head's loss


class ClusteringHead(Method):
    floor = -math.inf
    running: Tensor
    held: Tensor
    count: Tensor

    def __init__(self, backbone: nn.Module, clusters: int = 10, heads: int = 5, finer: int = 5):
        super().__init__(backbone)
        if clusters < 2 or heads < 1 or finer < 0:
            raise ValueError("at least 2 clusters and 1 head are needed, and finer is 0 or more")
        dim = self.backbone.dim
        self.heads = nn.ModuleList(nn.Linear(dim, clusters) for _ in range(heads))  # Sec. 3.3: sub-heads
        self.finer = nn.ModuleList(nn.Linear(dim, clusters * finer) for _ in range(heads if finer > 1 else 0))
        self.floor = -math.log(clusters * max(1, finer))  # type: ignore[misc]
        self.register_buffer("running", torch.zeros(heads))
        self.register_buffer("held", torch.zeros(heads), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.just(2, "global")
        h1, h2 = self.backbone(x1), self.backbone(x2)  # (B, dim)
        own = torch.stack([lost_information(head(h1), head(h2)) for head in self.heads])
        parts = [own.mean()]
        if len(self.finer):  # Sec. 3.3: auxiliary overclustering
            parts.append(torch.stack([lost_information(head(h1), head(h2)) for head in self.finer]).mean())
        if self.training and torch.is_grad_enabled():
            self.held.add_(mean(own).to(self.held.dtype))
            self.count.add_(1)
        return {"loss": torch.stack(parts).mean(), "information": -own.detach().mean(), "spread": spread(h1)}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        seen = self.held / self.count.clamp(min=1)
        self.running.lerp_(seen, (1 - REMEMBER) * (self.count > 0))
        self.held.zero_()
        self.count.zero_()

    def assign(self, x: Tensor) -> Tensor:
        """Of the head that lost least."""
        logits = torch.stack([head(self.backbone(x)) for head in self.heads])
        return logits.softmax(dim=2)[self.running.argmin()]

    def describe(self) -> dict[str, Any]:
        clusters = self.heads[0].out_features
        finer = f" and {len(self.finer)} of {self.finer[0].out_features}" if len(self.finer) else ""
        return {"heads": f"{len(self.heads)} of {clusters} clusters{finer}"}


@full_precision
def lost_information(logits1: Tensor, logits2: Tensor) -> Tensor:
    """Eqs. (2), (3): minus the mutual information, in nats, of the clusters of two views (B, K); at least -log K.

    P = the mean over the global batch of p1 p2^T, made symmetric; I = sum of P log(P / (P_row P_column)).
    """
    p1, p2 = gather(logits1.softmax(dim=1)), gather(logits2.softmax(dim=1))  # (N, K)
    joint = p1.T @ p2 / len(p1)
    joint = (joint + joint.T) / 2
    joint = joint.clamp(min=torch.finfo(joint.dtype).tiny)
    marginal = joint.sum(dim=1)
    return -(joint * (joint.log() - marginal.log()[:, None] - marginal.log()[None, :])).sum()
