"""SMoG: cross-entropy of predicting the group of the other view, with groups updated by momentum in every step.

Pang et al., "Unsupervised Visual Representation Learning by Synchronous Momentum Grouping", ECCV 2022.
https://arxiv.org/abs/2207.06167
B batch of this process, N global batch, K groups, P projection width. Contrast between groups and their periodic reset prevent
collapse. Deviations from the paper:
- Both directions are computed in each step, and both views update the groups.
- Groups are reset by spherical k-means over a queue of past embeddings, also after the first `FIRST` steps: of random directions
  most would have no sample.
- Head widths follow the backbone (`auto`); fewer groups, for smaller data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.ema import Teacher
from sslcli.nn.heads import Width, mlp
from sslcli.nn.kmeans import nearest, spherical_kmeans
from sslcli.nn.precision import full_precision
from sslcli.nn.prototypes import cosine_similarity, effective_prototypes
from sslcli.nn.queue import Queue
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter

FIRST = 10  # steps before the first reset of the groups
ROUNDS = 10  # of k-means


class SMoG(Method):
    groups: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        prototypes: int = 256,
        beta: float = 0.99,
        reset_every: int = 300,
        queue: int = 4096,
        temperature: float = 0.1,
        tau: float = 0.99,
    ):
        super().__init__(backbone)
        if not 1 < prototypes <= queue:
            raise ValueError(f"prototypes must be from 2 to `queue` ({queue}), got {prototypes}")
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 128)
        self.projector = mlp(self.backbone.dim, hidden, width, last_norm="affine")
        self.predictor = mlp(width, hidden, width)
        self.teacher = Teacher(backbone, self.projector)
        self.register_buffer("groups", F.normalize(torch.randn(prototypes, width), dim=1))
        self.queue = Queue(queue, width)
        self.clock = StepCounter()
        self.beta, self.reset_every, self.temperature, self.tau = beta, reset_every, temperature, tau

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views = batch.expect_views(2, "global")
        y = [self.projector(self.backbone(x)) for x in views]  # (B, P) each
        z, p = [F.normalize(one, dim=1) for one in y], [self.predictor(one) for one in y]
        targets = [nearest(F.normalize(self.teacher(x), dim=1), F.normalize(self.groups, dim=1)) for x in views]  # (B,)
        moved = update_groups(self.groups, torch.cat([gather(one) for one in z]), self.beta)
        losses = [
            group_loss(one, moved, target, self.temperature) for one, target in zip(p, targets[::-1], strict=True)
        ]
        if self.training and torch.is_grad_enabled():
            self.groups.copy_(moved.detach())
            for one in z:
                self.queue.stage(one, batch.ids)
        used = effective_prototypes(F.one_hot(targets[0], len(self.groups)).to(z[0].dtype))
        return {"loss": torch.stack(losses).mean(), "used": used, "spread": spread(z[0])}

    def after_step(self, progress: float) -> None:
        self.queue.push()
        steps = self.clock.tick()
        again = steps % self.reset_every == 0
        self.teacher.update(self.backbone, self.projector, momentum=0.0 if again else self.tau)
        if again or steps == FIRST:
            self.reset(steps)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Reset the groups by k-means over the queue, so that no few groups absorb all samples."""
        generator = torch.Generator().manual_seed(seed)  # equal on every process
        filled = self.queue.ids >= 0
        order = torch.rand(len(filled), generator=generator, dtype=torch.float64).to(filled.device) + ~filled
        start = self.queue.keys[order.argsort()[: len(self.groups)]]
        self.groups.copy_(spherical_kmeans(self.queue.keys, start, ROUNDS, filled.to(self.queue.keys.dtype)))

    def assign(self, x: Tensor) -> Tensor:
        """The softmax over the groups, at the temperature of training."""
        p = self.predictor(self.projector(self.backbone(x)))
        return (cosine_similarity(p, self.groups) / self.temperature).softmax(dim=1)

    def details(self) -> dict[str, str]:
        return {
            "groups": f"{len(self.groups)}, reset every {self.reset_every} steps by k-means over {len(self.queue.keys)} embeddings",
        }


@full_precision
def update_groups(groups: Tensor, z: Tensor, beta: float) -> Tensor:
    """Momentum update: each of (K, P) groups becomes beta times itself plus 1 - beta times the mean of the rows of z (n, P)
    nearest to it by cosine similarity; empty groups are unchanged. Differentiable in z."""
    group = nearest(z.detach(), F.normalize(groups, dim=1))
    sums = torch.zeros_like(groups).index_add(0, group, z)
    count = torch.zeros_like(groups[:, :1]).index_add(0, group, torch.ones_like(z[:, :1]))
    return torch.where(count > 0, beta * groups + (1 - beta) * sums / count.clamp(min=1), groups)


@full_precision
def group_loss(p: Tensor, groups: Tensor, group: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the cosine similarities of p (B, P) and groups (K, P) over the temperature; target `group` (B,)."""
    return F.cross_entropy(cosine_similarity(p, groups) / temperature, group)
