"""SimCSE, unsupervised: contrastive loss of two passes of the same text, which differ by dropout alone.

Gao, Yao & Chen, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", EMNLP 2021, Sec. 3. https://arxiv.org/abs/2104.08821
B batch of this process, N global batch, D width. Negatives from the batch prevent collapse. The head is used in training only, as
in Sec. 3.1. Deviations from the authors' code: the features are those of the backbone (`backbone.pool`), there the class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.bert_layers import init_bert
from sslcli.nn.losses import contrastive_loss
from sslcli.nn.stats import spread


class SimCSE(Method):
    requires = frozenset({"vocabulary"})
    compares = True
    negatives = 1

    def __init__(self, backbone: nn.Module, temperature: float = 0.05):
        super().__init__(backbone)
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not has_dropout(self.backbone):
            raise ValueError(
                "the two passes of simcse differ by the backbone's dropout, and it has none: backbone=bert_tiny "
                "backbone.dropout=0.1"
            )
        self.temperature = temperature
        self.head = nn.Sequential(nn.Linear(self.backbone.dim, self.backbone.dim), nn.Tanh())
        self.head.apply(init_bert)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        h = self.backbone(torch.cat([x, x]))  # (2 B, D), each row with a dropout mask of its own
        z, other = self.head(h).chunk(2)
        return {"loss": contrastive_loss(z, other, self.temperature), "spread": spread(z)}  # eq. (4)


def has_dropout(backbone: nn.Module) -> bool:
    """Whether some layer has a dropout above 0."""
    rates = (m.p if isinstance(m, nn.Dropout) else getattr(m, "dropout", 0.0) for m in backbone.modules())
    return any(isinstance(p, float) and p > 0 for p in rates)
