"""SCARF: contrastive loss between a row of a table and a copy in which most columns are drawn from their marginals.

Bahri et al., "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption", ICLR 2022.
https://arxiv.org/abs/2106.15147
B batch of this process, N global batch, P projection width. Only one of the two views is corrupted (Sec. 4: better than both);
the corruption itself is the op `corrupt` of the views. Negatives prevent collapse. Deviations from the paper: the constant log N of
Algorithm 1 is left out of the loss; the backbone has batch norm and embeddings of categories, theirs neither.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import contrastive_loss
from sslcli.nn.stats import spread


class SCARF(Method):
    requires = frozenset({"columns"})
    compares = True
    negatives = 1

    def __init__(
        self, backbone: nn.Module, hidden_dim: Width = "auto", proj_dim: Width = "auto", temperature: float = 1.0
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 256)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width, norm=False)  # Sec. 4: two layers with ReLU
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, corrupted = batch.expect_views(2, "clean", "corrupted")
        z, other = (self.projector(self.backbone(view)) for view in (x, corrupted))  # (B, P)
        return {"loss": contrastive_loss(z, other, self.temperature), "spread": spread(z)}
