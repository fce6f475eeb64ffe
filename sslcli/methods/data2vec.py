"""data2vec: from a masked view, say what a moving average of the network thinks, layer by layer, of the whole view.

Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language", ICML 2022.
https://arxiv.org/abs/2202.03555
B batch, N tokens, D width. Works on whatever the backbone calls tokens. Deviations from the authors' code: tokens are hidden
one by one and not in blocks; targets are of block outputs, normalised without scale and shift; the teacher does not freeze
its positions. The student is measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.masking import keep_count, random_keep
from sslcli.nn.patches import smooth_l1
from sslcli.nn.stats import spread


class Data2Vec(Method):
    needs_tokens = True

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
            raise ValueError("top is 1 block or more, beta is above 0")
        self.keep = keep_count(self.backbone.num_tokens, mask_ratio)
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
        target = self.target(x)
        loss = smooth_l1(self.regress(student), target, hidden, self.beta)  # eq. (2)
        return {"loss": loss, "spread": spread(student.mean(dim=1))}

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """Sec. 3.3, eq. (1): (B, N, D), the mean of the teacher's last `top` blocks, each normalised by itself."""
        teacher: Any = self.teacher.parts[0]
        depths = teacher.depths(x)[-self.top :]
        means = torch.stack([F.layer_norm(d.float(), d.shape[-1:]) for d in depths]).mean(dim=0)
        return means[:, self.backbone.prefix :]

    def after_step(self, progress: float) -> None:
        self.teacher.update(self.backbone, momentum=cosine_momentum(progress, self.tau, self.tau_end))

    def details(self) -> dict[str, str]:
        total = self.backbone.num_tokens
        return {"tokens": f"{total - self.keep} of {total} hidden", "targets": f"the last {self.top} blocks"}
