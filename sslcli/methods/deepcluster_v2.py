"""DeepCluster v2: cross-entropy with cluster assignments from spherical k-means over the previous epoch's embeddings.

Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018. https://arxiv.org/abs/1807.05520
Caron et al., SwAV, NeurIPS 2020, Appendix D. https://arxiv.org/abs/2006.09882 (version 2: spherical k-means, whose centroids
classify)
B batch, P projection width, S samples, K clusters, H clusterings, V views, the first two of them global. The memory holds
embeddings computed during training, so that no extra pass over the data is needed. Assignments are fixed within an epoch, which
prevents collapse. Deviations from the authors' code:
- They fill the memory before training with a pass of the random network. Here a sample without a cluster yet (the first epoch)
  takes the argmax of its other view's SwAV code over the batch, with random centroids.
- Every process holds the whole memory and computes the same clusters; theirs distribute both.
- K is at most S; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, DataInfo, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.kmeans import nearest, spherical_kmeans
from sslcli.nn.memory_bank import MemoryBank
from sslcli.nn.precision import full_precision
from sslcli.nn.prototypes import cosine_similarity, effective_prototypes
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter

EPSILON = 0.03  # of the first epoch's codes


class DeepClusterV2(Method):
    memory: Any  # a MemoryBank for each of the first two views
    centroids: Tensor
    clusters: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        data: DataInfo,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        prototypes: int = 256,
        clusterings: int = 3,
        iterations: int = 10,
        temperature: float = 0.1,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 128)
        self.projector = mlp(self.backbone.dim, hidden, width)
        count = min(prototypes, data.samples)
        self.register_buffer("centroids", F.normalize(torch.randn(clusterings, count, width), dim=2))
        self.register_buffer("clusters", torch.full((data.samples, clusterings), -1, dtype=torch.int64))  # -1: none yet
        self.memory = nn.ModuleList(MemoryBank(data.samples, width) for _ in range(min(2, clusterings)))
        self.clock = StepCounter()
        self.per_epoch, self.iterations, self.temperature = data.steps_per_epoch, iterations, temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        z = [F.normalize(self.projector(self.backbone(x)), dim=1) for x in global_views + local_views]  # V x (B, P)
        if self.training and torch.is_grad_enabled():
            for memory, embedding in zip(self.memory, z, strict=False):
                memory.stage(embedding, batch.ids)
        assigned = self.clusters[batch.ids]  # (B, H)
        losses = []
        for h, centroids in enumerate(self.centroids):
            scores = torch.stack([cosine_similarity(embedding, centroids) for embedding in z])  # (V, B, K)
            codes = [
                sinkhorn(scores[v].detach(), EPSILON).argmax(dim=1) for v in (1, 0)
            ]  # for the first view, for the others
            first = torch.stack([codes[min(v, 1)] for v in range(len(z))])  # (V, B)
            target = torch.where(assigned[:, h] < 0, first, assigned[:, h])
            losses.append(cluster_loss(scores, target, self.temperature))
        used = effective_prototypes(F.one_hot(target[0], len(centroids)).to(scores.dtype))
        return {"loss": torch.stack(losses).mean(), "used": used, "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        for memory in self.memory:
            memory.push()
        steps = self.clock.tick()
        if steps % self.per_epoch == 0:
            self.cluster(steps)

    @torch.no_grad()
    def cluster(self, seed: int) -> None:
        """Appendix D: H clusterings, from starts of their embedding, of the views' embeddings in turn."""
        generator = torch.Generator().manual_seed(seed)  # equal on every process
        for h in range(len(self.centroids)):
            memory = self.memory[h % len(self.memory)]
            filled = memory.ids >= 0
            order = torch.rand(len(filled), generator=generator, dtype=torch.float64).to(filled.device) + ~filled
            start = memory.keys[order.argsort()[: self.centroids.shape[1]]]
            centroids = spherical_kmeans(memory.keys, start, self.iterations, filled.to(memory.keys.dtype))
            self.centroids[h] = centroids
            self.clusters[:, h] = nearest(memory.keys, centroids).where(filled, -1)

    def assign(self, x: Tensor) -> Tensor:
        """The softmax over the clusters of the first clustering, at the temperature of training."""
        z = self.projector(self.backbone(x))
        return (cosine_similarity(z, self.centroids[0]) / self.temperature).softmax(dim=1)

    def details(self) -> dict[str, str]:
        heads, count, _ = self.centroids.shape
        clusters = f"{count} in each of {heads} clusterings, repeated every {self.per_epoch} steps"
        return {"clusters": clusters}


@full_precision
def cluster_loss(scores: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of (V, B, K) cosine similarities over the temperature and the clusters (V, B)."""
    return F.cross_entropy((scores / temperature).flatten(0, 1), clusters.flatten())
