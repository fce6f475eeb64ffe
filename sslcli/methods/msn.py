"""MSN: cross-entropy between prototype assignments of a masked view and of an EMA teacher's unmasked other view.

Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022. https://arxiv.org/abs/2204.07141
B batch of this process, P projection width, K prototypes, A anchors. Sharpening, Sinkhorn-Knopp and the maximized entropy of the
mean assignment prevent collapse. The first global view is the teacher's; the other global views are anchors with tokens dropped,
local ones (the paper's focal crops) anchors without masking. Averages and assignments are those of the global batch. The teacher
is evaluated, by its class token (backbone.pool=cls). Deviations from the authors' code: prototypes are normalized in the forward
pass; each anchor is a forward pass of its own; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, gelu_head
from sslcli.nn.masking import random_keep, visible_count
from sslcli.nn.precision import full_precision
from sslcli.nn.prototypes import Prototypes, effective_prototypes
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.stats import spread


class MSN(Method):
    requires = frozenset({"views", "positions"})
    compares = True

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        prototypes: int = 256,
        mask_ratio: float = 0.15,
        temperature: float = 0.1,
        sharpening: float = 0.125,
        iterations: int = 3,
        mean_entropy: float = 1.0,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        self.head = gelu_head(self.backbone.dim, hidden, hidden, width, norm=True)
        self.prototypes = Prototypes(width, prototypes)  # q
        self.teacher = Teacher(backbone, self.head)
        self.keep = visible_count(self.backbone.num_tokens, mask_ratio)
        self.temperature, self.sharpening, self.iterations = temperature, sharpening, iterations
        self.mean_entropy, self.tau, self.tau_end = mean_entropy, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (target_view, *anchor_views), local_views = batch.crops()
        anchors = []
        for i, x in enumerate(anchor_views):
            keep, _ = random_keep(batch.uniform(f"mask of anchor {i}", self.backbone.num_tokens), self.keep)
            anchors.append(self.head(self.backbone.tokens(x, keep)[:, 0]))  # (B, P)
        anchors += [self.head(self.backbone.tokens(x)[:, 0]) for x in local_views]
        scores = torch.stack([self.prototypes(z) for z in anchors])  # (A, B, K)
        with torch.no_grad():
            targets = self.targets(self.prototypes(self.teacher_embedding(target_view)))  # (B, K)
        terms = msn_terms(scores / self.temperature, targets)
        loss = terms["assignment"] + self.mean_entropy * terms["mean_entropy"]
        metrics = {k: v.detach() for k, v in terms.items()}
        return {"loss": loss, **metrics, "used": effective_prototypes(targets), "spread": spread(anchors[0])}

    @torch.no_grad()
    def teacher_embedding(self, x: Tensor) -> Tensor:
        """(B, P): the teacher's embedding of unmasked views."""
        backbone, head = self.teacher.parts
        out: Tensor = head(backbone.tokens(x)[:, 0])  # type: ignore[operator]
        return out

    def targets(self, scores: Tensor) -> Tensor:
        """Sec. 3, "sharpening": p^(1/T), normalized, then a few Sinkhorn-Knopp iterations, as in the authors' settings."""
        sharp = (scores / (self.temperature * self.sharpening)).log_softmax(dim=1)
        return sinkhorn(sharp, 1.0, self.iterations)

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.head, momentum=momentum)

    @property
    def eval_backbone(self) -> nn.Module:
        return self.teacher.parts[0]

    def assign(self, x: Tensor) -> Tensor:
        """Eq. (1) of the teacher, without sharpening."""
        return (self.prototypes(self.teacher_embedding(x)) / self.temperature).softmax(dim=1)

    def details(self) -> dict[str, str]:
        return {
            "prototypes": str(len(self.prototypes.weight)),
            "tokens": f"{self.keep} of {self.backbone.num_tokens} visible to an anchor",
        }


@full_precision
def msn_terms(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The two terms of eq. (2) for the anchors' (A, B, K) logits and (B, K) targets, which are detached.

    `assignment`: mean cross-entropy of the anchors with their samples' targets. `mean_entropy`: ln K minus the entropy of
    the mean prediction of all anchors in the global batch, 0 when all prototypes are used equally.
    """
    anchors, _, k = logits.shape
    flat = logits.flatten(0, 1)
    assignment = F.cross_entropy(flat, targets.detach().repeat(anchors, 1))
    average = gather(flat.softmax(dim=1).mean(dim=0)[None]).mean(dim=0)  # (K,)
    return {"assignment": assignment, "mean_entropy": math.log(k) - torch.special.entr(average).sum()}
