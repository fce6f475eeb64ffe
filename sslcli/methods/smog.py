"""SMoG: a view predicts the group of its other view, and the groups move with every batch, gradient and all.

Pang et al., "Unsupervised Visual Representation Learning by Synchronous Momentum Grouping", ECCV 2022.
https://arxiv.org/abs/2207.06167
B batch of this process, N global batch, K groups, P projection width. Deviations from the paper:
- Both directions are computed in each step, and the groups move by both views.
- The groups are found anew from a queue of past embeddings by spherical k-means, also after the first `FIRST` steps: random
  directions are no groups, and most of them would get no sample.
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
from sslcli.nn.prototypes import cosines, effective_prototypes
from sslcli.nn.queue import Queue
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter

FIRST = 10  # steps before the first groups are found
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
            raise ValueError(f"there are 2 to `queue` prototypes ({queue}), not {prototypes}")
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
        seen = batch.expect_views(2, "global")
        y = [self.projector(self.backbone(x)) for x in seen]  # (B, P) each
        z, p = [F.normalize(own, dim=1) for own in y], [self.predictor(own) for own in y]
        told_by = [nearest(F.normalize(self.teacher(x), dim=1), F.normalize(self.groups, dim=1)) for x in seen]  # (B,)
        moved = moved_groups(self.groups, torch.cat([gather(own) for own in z]), self.beta)
        losses = [group_loss(own, moved, other, self.temperature) for own, other in zip(p, told_by[::-1], strict=True)]
        if self.training and torch.is_grad_enabled():
            self.groups.copy_(moved.detach())
            for own in z:
                self.queue.hold(own, batch.ids)
        used = effective_prototypes(F.one_hot(told_by[0], len(self.groups)).to(z[0].dtype))
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
        """The groups are found anew among the embeddings of the last steps, lest few of them hold all."""
        lot = torch.Generator().manual_seed(seed)  # the same on every process
        met = self.queue.ids >= 0
        order = torch.rand(len(met), generator=lot, dtype=torch.float64).to(met.device) + ~met
        start = self.queue.keys[order.argsort()[: len(self.groups)]]
        self.groups.copy_(spherical_kmeans(self.queue.keys, start, ROUNDS, met.to(self.queue.keys.dtype)))

    def assign(self, x: Tensor) -> Tensor:
        """The softmax over the groups, at the temperature of training."""
        p = self.predictor(self.projector(self.backbone(x)))
        return (cosines(p, self.groups) / self.temperature).softmax(dim=1)

    def details(self) -> dict[str, str]:
        return {
            "groups": f"{len(self.groups)}, found anew every {self.reset_every} steps among {len(self.queue.keys)} embeddings",
        }


@full_precision
def moved_groups(groups: Tensor, z: Tensor, beta: float) -> Tensor:
    """Momentum grouping: each of (K, P) groups goes to beta times itself and 1 - beta times the mean of those of z (n, P) that are
    nearest to it by cosine; one without any stays. A gradient reaches z."""
    own = nearest(z.detach(), F.normalize(groups, dim=1))
    sums = torch.zeros_like(groups).index_add(0, own, z)
    count = torch.zeros_like(groups[:, :1]).index_add(0, own, torch.ones_like(z[:, :1]))
    return torch.where(count > 0, beta * groups + (1 - beta) * sums / count.clamp(min=1), groups)


@full_precision
def group_loss(p: Tensor, groups: Tensor, own: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of cosines of p (B, P) and groups (K, P) over the temperature, and groups `own` (B,)."""
    return F.cross_entropy(cosines(p, groups) / temperature, own)
