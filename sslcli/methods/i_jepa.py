"""I-JEPA: smooth L1 loss between predicted and EMA-teacher features of masked blocks, given a context block.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", CVPR 2023.
https://arxiv.org/abs/2301.08243
B batch, N tokens, n context tokens, a tokens of a target block, D width, P predictor width. The predictor and the momentum
encoder prevent collapse. Works on any tokens of the backbone; for series, blocks are time spans. The teacher is evaluated, as in
the paper. Deviations from the authors' code: blocks of one size (the middle of their ranges) at positions drawn per sample,
where theirs share sizes in a batch; the context is everything outside the targets, not a block of 85 to 100 % of it; fixed
positional embeddings only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.block_masks import block_mask
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.patches import smooth_l1
from sslcli.nn.stats import spread
from sslcli.nn.transformer import Block, init_linear

HEADS = 4


class IJEPA(Method):
    requires = frozenset({"positions", "blocks"})

    def __init__(
        self,
        backbone: nn.Module,
        targets: int = 4,
        scale: float = 0.175,
        predictor_dim: int = 64,
        predictor_depth: int = 2,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        if targets < 1 or not 0 < scale < 1:
            raise ValueError("there is at least 1 target block_mask, and its scale is a share between 0 and 1")
        if predictor_dim < 1 or predictor_dim % (4 * HEADS):
            raise ValueError(f"predictor_dim must be a multiple of {4 * HEADS}, got {predictor_dim}")
        self.targets, self.tau, self.tau_end = targets, tau, tau_end
        self.side = scale ** (1 / len(self.backbone.grid))  # of a block_mask, as a share of each axis
        self.embed = nn.Linear(self.backbone.dim, predictor_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, predictor_dim))
        self.positions: Tensor
        self.register_buffer("positions", self.backbone.token_positions(predictor_dim), persistent=False)
        self.predictor = nn.ModuleList(Block(predictor_dim, HEADS) for _ in range(predictor_depth))
        self.norm = nn.LayerNorm(predictor_dim, eps=1e-6)
        self.tell = nn.Linear(predictor_dim, self.backbone.dim)
        for part in (self.embed, self.predictor, self.tell):
            part.apply(init_linear)
        nn.init.normal_(self.mask_token, std=0.02)
        self.teacher = Teacher(backbone)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        places = batch.uniform("blocks", self.targets, len(self.backbone.grid))
        blocks = [block_mask(places[:, t], self.backbone.grid, self.side).flatten(1) for t in range(self.targets)]
        prefix = self.backbone.prefix
        context, keep, valid = self.context(x, torch.stack(blocks).any(dim=0))
        with torch.no_grad():
            teacher: Any = self.teacher.parts[0]
            tokens = teacher.tokens(x)[:, prefix:]
            target = F.layer_norm(tokens.float(), tokens.shape[-1:])  # (B, N, D)
        present = self.backbone.present(x)  # (B, N): padding is no target
        losses = []
        for inside in blocks:
            at = inside.nonzero()[:, 1].view(len(x), -1)  # (B, a): blocks are of one size
            predicted = self.predict(context, keep, valid, at)
            expected = target.gather(1, at[:, :, None].expand(-1, -1, target.shape[2]))
            where = torch.ones_like(at, dtype=torch.bool) if present is None else present.gather(1, at)
            losses.append(smooth_l1(predicted, expected, where))
        return {"loss": torch.stack(losses).mean(), "spread": spread(context.mean(dim=1))}  # eq. (1)

    def context(self, x: Tensor, covered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, n, D) of the tokens outside all targets, their indices (B, n), and which of them are valid (B, n).

        Targets overlap by different amounts, so n is the largest possible number; entries beyond a sample's own number are
        excluded from attention.
        """
        n = max(1, int(covered.shape[1] - covered.shape[1] * self.block_fraction()))
        keep = covered.to(torch.uint8).argsort(dim=1, stable=True)[:, :n]
        valid = ~covered.gather(1, keep)
        prefix = self.backbone.prefix
        attend = F.pad(valid, (prefix, 0), value=True)[:, None, :].expand(-1, prefix + n, -1)
        return self.backbone.tokens(x, keep, attend=attend)[:, prefix:], keep, valid

    def block_fraction(self) -> float:
        """Fraction of the tokens in one block, the least that targets cover."""
        one = block_mask(torch.zeros(1, len(self.backbone.grid)), self.backbone.grid, self.side)
        return float(one.float().mean())

    def predict(self, context: Tensor, keep: Tensor, valid: Tensor, at: Tensor) -> Tensor:
        """(B, a, D): predicted features of the tokens with indices `at` (B, a)."""
        positions = self.positions[self.backbone.prefix :]
        context_tokens = self.embed(context) + positions[keep]
        queries = self.mask_token + positions[at]
        h = torch.cat([context_tokens, queries.to(context_tokens.dtype)], dim=1)
        mask = F.pad(valid, (0, at.shape[1]), value=True)
        for part in self.predictor:
            h = part(h, mask)
        return self.tell(self.norm(h[:, context_tokens.shape[1] :]))

    def after_step(self, progress: float) -> None:
        self.teacher.update(self.backbone, momentum=cosine_momentum(progress, self.tau, self.tau_end))

    @property
    def eval_backbone(self) -> nn.Module:
        return self.teacher.parts[0]

    def details(self) -> dict[str, str]:
        n = self.backbone.num_tokens
        return {"targets": f"{self.targets} blocks of {round(n * self.block_fraction())} of {n} tokens"}
