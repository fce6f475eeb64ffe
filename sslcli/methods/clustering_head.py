"""Clustering head: a sample and its nearest neighbours belong to the same cluster, and all clusters are used (TEMI).

Adaloglou, Michels, Kalisch & Kollmann, "Exploring the Limits of Deep Image Clustering using Pretrained Models", BMVC 2023.
https://arxiv.org/abs/2303.17896
B batch of this process, K clusters, H heads, M memory. There, heads are trained on frozen features, whose neighbours are
searched once. Here the features are those that are being learned (method=multitask has this as a task beside a
self-supervised one), neighbours are searched among the features of past steps, and the gradient reaches the backbone.
`assign` gives the clusters, `sslcli eval cluster` measures them. Deviations beside that:
- A head is one linear layer on features of mean 0 and variance 1; theirs has hidden layers.
- The student sees a view, the teacher a neighbour, and not also the other way round: neighbours are from the memory and have
  no gradient. A sample without neighbours yet stands for its own.
- The teacher is faster (tau 0.9, theirs 0.996 over 100 epochs and more): in a run of some hundred steps it must arrive.
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

REMEMBER = 0.99  # of the moving average of each head's loss


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
            raise ValueError("at least 2 clusters, 1 head and 1 neighbour are needed")
        self.clusters, self.nearest = clusters, neighbours
        self.beta, self.temperature, self.tau, self.share_momentum = beta, temperature, tau, share_momentum
        self.head = nn.Linear(self.backbone.dim, heads * clusters)
        self.teacher = Teacher(self.head)
        self.memory = Queue(min(memory, data.samples), self.backbone.dim)
        self.share = RunningMean(heads * clusters, start=1 / clusters)  # of the teacher's samples in each cluster
        self.losses = RunningMean(heads)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        u1, u2 = (standardised(self.backbone(x)) for x in batch.expect_views(2, "global"))  # (B, dim)
        u = torch.stack([u1.detach(), u2.detach()])
        students = torch.stack([self.logs(self.head(v)) for v in (u1, u2)])  # (2, B, H, K)
        teachers = torch.stack([self.logs(self.teacher(v)) for v in u])
        mean = u.mean(dim=0)
        near = self.logs(self.teacher(self.neighbour(batch, mean)))
        share = self.share.value.view(-1, self.clusters)
        loss = torch.stack(
            [temi_loss(s, t, near, share, self.beta) for s, t in zip(students, teachers, strict=True)]
        ).mean(0)
        if self.training and torch.is_grad_enabled():
            self.memory.hold(F.normalize(mean, dim=1), batch.ids)
            self.share.see(torch.cat([*teachers, near]).exp().flatten(1))
            self.losses.see(loss.detach())
        return {"loss": loss.mean(), "agreement": agreement(teachers[0], near).mean(), "spread": spread(u1)}

    def logs(self, outputs: Tensor) -> Tensor:
        """(B, H K) -> (B, H, K) log-probabilities of the clusters."""
        return log_probs(outputs.unflatten(1, (-1, self.clusters)), self.temperature)

    @torch.no_grad()
    def neighbour(self, batch: Batch, u: Tensor) -> Tensor:
        """(B, dim): for each of u (B, dim) one of its nearest in the memory, drawn by lot; itself where there is none."""
        likeness = self.memory.likeness(u, batch.ids)
        best, at = likeness.topk(min(self.nearest, likeness.shape[1]), dim=1)
        there = (best > float("-inf")).sum(dim=1)  # (B,)
        drawn = (batch.uniform("neighbour").flatten() * there).long()
        found = self.memory.keys[at.gather(1, drawn[:, None])[:, 0]] * math.sqrt(u.shape[1])
        return torch.where(there[:, None] > 0, found.to(u.dtype), u)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.teacher.update(self.head, momentum=self.tau)
        self.memory.push()
        self.share.update(self.share_momentum)
        self.losses.update(REMEMBER)

    def assign(self, x: Tensor) -> Tensor:
        """By the teacher of the head that lost least."""
        logs = self.logs(self.teacher(standardised(self.backbone(x))))
        return logs[:, self.losses.value.argmin()].exp()

    def details(self) -> dict[str, str]:
        heads = len(self.losses.value)
        return {
            "heads": f"{heads} of {self.clusters} clusters",
            "memory": f"{len(self.memory.keys):,} samples of width {self.backbone.dim}",
        }


def standardised(h: Tensor) -> Tensor:
    """(B, dim) of mean 0 and variance 1 each: of length sqrt(dim), its cosines are correlations."""
    return F.layer_norm(h, h.shape[1:])


@full_precision
def log_probs(outputs: Tensor, temperature: float) -> Tensor:
    return (outputs / temperature).log_softmax(dim=2)


@full_precision
def temi_loss(student: Tensor, teacher: Tensor, near: Tensor, share: Tensor, beta: float) -> Tensor:
    """(B, H): minus the weighted pointwise mutual information of a sample x and its neighbour x', Sec. 3.

    -w log sum over clusters c of (q_s(c | x) q_t(c | x'))^beta / q_t(c); the weight w is `agreement`, averaged over heads, so
    that pairs that no head believes in count little. student and teacher of x, near: teacher of x', all (B, H, K)
    logarithms; share (H, K): q_t(c), a moving average of the teacher. With beta < 1 a pair can agree without being certain.
    """
    share = share.clamp(min=torch.finfo(share.dtype).tiny)  # of a cluster that nobody is in
    pmi = (beta * (student + near.detach()) - share.log()).logsumexp(dim=2)
    weight = agreement(teacher, near).mean(dim=1, keepdim=True)
    return -weight.detach() * pmi


def agreement(teacher: Tensor, near: Tensor) -> Tensor:
    """(B, H): sum over c of q_t(c | x) q_t(c | x'), from logarithms (B, H, K)."""
    return (teacher + near).exp().sum(dim=2)
