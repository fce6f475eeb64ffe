"""TEMI clustering head: pointwise mutual information between the cluster assignments of a sample and of its neighbors.

Adaloglou, Michels, Kalisch & Kollmann, "Exploring the Limits of Deep Image Clustering using Pretrained Models", BMVC 2023.
https://arxiv.org/abs/2303.17896
B batch of this process, K clusters, H heads, M memory. The entropy of the mean assignment, part of the mutual information,
prevents a single cluster. The paper trains heads on frozen features, whose neighbors are searched once. Here the features are
being trained (method=multitask adds this head to a self-supervised method), neighbors are searched among features of past steps,
and gradients reach the backbone. `assign` returns the clusters, `sslcli eval cluster` evaluates them. Further deviations:
- A head is one linear layer on features of mean 0 and variance 1; theirs has hidden layers.
- The student sees a view and the teacher a neighbor, not also the reverse: neighbors are from the memory and have no gradient.
  A sample without neighbors yet is its own neighbor.
- The teacher is faster (tau 0.9, theirs 0.996 over 100 epochs and more), so that it converges in some hundred steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, DataInfo, Method
from sslcli.nn.ema import Teacher
from sslcli.nn.precision import full_precision
from sslcli.nn.queue import Queue
from sslcli.nn.running_mean import RunningMean
from sslcli.nn.stats import spread

LOSS_MOMENTUM = 0.99  # of the moving average of each head's loss


class ClusteringHead(Method):
    min_loss = -math.inf

    def __init__(
        self,
        backbone: nn.Module,
        data: DataInfo,
        clusters: int = 10,
        heads: int = 10,
        neighbours: int = 25,
        beta: float = 0.6,
        temperature: float = 0.3,
        tau: float = 0.9,
        share_momentum: float = 0.9,
        memory: int = 16_384,
    ):
        super().__init__(backbone)
        if clusters < 2 or heads < 1 or neighbours < 1:
            raise ValueError("clusters must be at least 2, heads and neighbours at least 1")
        self.clusters, self.neighbors = clusters, neighbours
        self.beta, self.temperature, self.tau, self.share_momentum = beta, temperature, tau, share_momentum
        self.head = nn.Linear(self.backbone.dim, heads * clusters)
        self.teacher = Teacher(self.head)
        self.memory = Queue(min(memory, data.samples), self.backbone.dim)
        self.share = RunningMean(heads * clusters, start=1 / clusters)  # mean assignment of the teacher
        self.losses = RunningMean(heads)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        u1, u2 = (standardize(self.backbone(x)) for x in batch.expect_views(2, "global"))  # (B, dim)
        u = torch.stack([u1.detach(), u2.detach()])
        students = torch.stack([self.log_assignments(self.head(v)) for v in (u1, u2)])  # (2, B, H, K)
        teachers = torch.stack([self.log_assignments(self.teacher(v)) for v in u])
        mean = u.mean(dim=0)
        near = self.log_assignments(self.teacher(self.sample_neighbor(batch, mean)))
        share = self.share.value.view(-1, self.clusters)
        loss = torch.stack(
            [temi_loss(s, t, near, share, self.beta) for s, t in zip(students, teachers, strict=True)]
        ).mean(0)
        if self.training and torch.is_grad_enabled():
            self.memory.stage(F.normalize(mean, dim=1), batch.ids)
            self.share.observe(torch.cat([*teachers, near]).exp().flatten(1))
            self.losses.observe(loss.detach())
        return {"loss": loss.mean(), "agreement": agreement(teachers[0], near).mean(), "spread": spread(u1)}

    def log_assignments(self, outputs: Tensor) -> Tensor:
        """(B, H K) -> (B, H, K) log-probabilities of the clusters."""
        return log_probs(outputs.unflatten(1, (-1, self.clusters)), self.temperature)

    @torch.no_grad()
    def sample_neighbor(self, batch: Batch, u: Tensor) -> Tensor:
        """(B, dim): for each row of u (B, dim) a random one of its nearest neighbors in the memory; itself without any."""
        similarity = self.memory.similarity(u, batch.ids)
        best, at = similarity.topk(min(self.neighbors, similarity.shape[1]), dim=1)
        count = (best > float("-inf")).sum(dim=1)  # (B,)
        choice = (batch.uniform("neighbour").flatten() * count).long()
        neighbor = self.memory.keys[at.gather(1, choice[:, None])[:, 0]] * math.sqrt(u.shape[1])
        return torch.where(count[:, None] > 0, neighbor.to(u.dtype), u)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.teacher.update(self.head, momentum=self.tau)
        self.memory.push()
        self.share.update(self.share_momentum)
        self.losses.update(LOSS_MOMENTUM)

    def assign(self, x: Tensor) -> Tensor:
        """Assignments of the teacher head with the lowest mean loss."""
        log_p = self.log_assignments(self.teacher(standardize(self.backbone(x))))
        return log_p[:, self.losses.value.argmin()].exp()

    def details(self) -> dict[str, str]:
        heads = len(self.losses.value)
        return {
            "heads": f"{heads} of {self.clusters} clusters",
            "memory": f"{len(self.memory.keys):,} samples of width {self.backbone.dim}",
        }


def standardize(h: Tensor) -> Tensor:
    """Features (B, dim) with mean 0 and variance 1 per sample: their cosine similarities are correlations."""
    return F.layer_norm(h, h.shape[1:])


@full_precision
def log_probs(outputs: Tensor, temperature: float) -> Tensor:
    """log softmax over the last axis of (B, H, K) at a temperature."""
    return (outputs / temperature).log_softmax(dim=2)


@full_precision
def temi_loss(student: Tensor, teacher: Tensor, near: Tensor, share: Tensor, beta: float) -> Tensor:
    """(B, H): the negative weighted pointwise mutual information of a sample x and its neighbor x', Sec. 3.

    -w log sum over clusters c of (q_s(c | x) q_t(c | x'))^beta / q_t(c); the weight w is the mean `agreement` of the heads, so
    that pairs on which no head agrees have little influence. `student` and `teacher` of x, `near`: the teacher of x', all (B, H, K)
    log-probabilities; `share` (H, K): q_t(c), a moving average of the teacher. With beta < 1 a pair may agree without certainty.
    """
    share = share.clamp(min=torch.finfo(share.dtype).tiny)  # of an empty cluster
    pmi = (beta * (student + near.detach()) - share.log()).logsumexp(dim=2)
    weight = agreement(teacher, near).mean(dim=1, keepdim=True)
    return -weight.detach() * pmi


def agreement(teacher: Tensor, near: Tensor) -> Tensor:
    """(B, H): sum over c of q_t(c | x) q_t(c | x'), from log-probabilities (B, H, K)."""
    return (teacher + near).exp().sum(dim=2)
