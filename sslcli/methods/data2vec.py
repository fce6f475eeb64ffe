"""data2vec: smooth L1 loss between predictions from a masked view and contextual features of an EMA teacher.

Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language", ICML 2022.
https://arxiv.org/abs/2202.03555
B batch, N tokens, D width. Targets are means of the teacher's last blocks, each normalized, for the whole view; their
normalization and the momentum encoder prevent collapse. Works on any tokens of the backbone; those without any value, such as
padding, are no targets. The student is evaluated. Deviations from the authors' code: tokens are masked independently, not in
blocks; targets are block outputs, normalized without scale and shift; the teacher's positions are updated too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.masking import exclude_padding, random_keep, visible_count
from sslcli.nn.patches import smooth_l1
from sslcli.nn.stats import spread


class Data2Vec(Method):
    requires = frozenset({"positions"})

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float = 0.6,
        top: int = 3,
        beta: float = 2.0,
        tau: float = 0.999,
        tau_end: float = 0.9998,
    ):
        super().__init__(backbone)
        if top < 1 or beta <= 0:
            raise ValueError("top must be at least 1 block, beta above 0")
        self.keep = visible_count(self.backbone.num_tokens, mask_ratio)
        self.top, self.beta, self.tau, self.tau_end = top, beta, tau, tau_end
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.regress = nn.Linear(self.backbone.dim, self.backbone.dim)
        self.teacher = Teacher(backbone)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        _, hidden = random_keep(batch.uniform("mask", self.backbone.num_tokens), self.keep)
        prefix = self.backbone.prefix
        student = self.backbone.tokens(x, hidden=hidden, mask_token=self.mask_token)[:, prefix:]
        counted = exclude_padding(hidden, self.backbone.present(x))
        loss = smooth_l1(self.regress(student), self.target(x), counted, self.beta)  # eq. (2)
        return {"loss": loss, "spread": spread(student.mean(dim=1))}

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """Sec. 3.3, eq. (1): (B, N, D), the mean of the teacher's last `top` block outputs, each layer-normalized."""
        teacher: Any = self.teacher.parts[0]
        depths = teacher.depths(x)[-self.top :]
        means = torch.stack([F.layer_norm(d.float(), d.shape[-1:]) for d in depths]).mean(dim=0)
        return means[:, self.backbone.prefix :]

    def after_step(self, progress: float) -> None:
        self.teacher.update(self.backbone, momentum=cosine_momentum(progress, self.tau, self.tau_end))

    def details(self) -> dict[str, str]:
        total = self.backbone.num_tokens
        return {"tokens": f"{total - self.keep} of {total} masked", "targets": f"the last {self.top} blocks"}
