"""VIME: which columns of a row were replaced by draws from their marginals, and the original values, both from one feature vector.

Yoon et al., "VIME: Extending the Success of Self- and Semi-supervised Learning to Tabular Domain", NeurIPS 2020.
https://proceedings.neurips.cc/paper/2020/hash/7d97667a3e056acab9aaf653807b4a03-Abstract.html
B rows, F columns. The self-supervised part (Sec. 4.1); the corruption is the op `corrupt` of the views. As in the authors' code, a
column counts as replaced where its value differs. Deviations: categories are predicted with cross-entropy, theirs are one-hot with
squared error; numbers are standardized, theirs scaled to 0..1; missing values are no target of the reconstruction.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.precision import full_precision


class VIME(Method):
    requires = frozenset({"columns"})

    def __init__(self, backbone: nn.Module, alpha: float = 2.0):
        super().__init__(backbone)
        if alpha < 0:
            raise ValueError("alpha must be at least 0")
        values = self.backbone.values
        self.alpha = alpha
        self.mask_head = nn.Linear(self.backbone.dim, len(values.categories))  # s_m, a linear layer in their code
        self.value_head = nn.Linear(self.backbone.dim, values.slices.outputs)  # s_r
        self.likelihood = values.likelihood()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, corrupted = batch.expect_views(2, "clean", "corrupted")
        h = self.backbone(corrupted)  # (B, dim)
        mask = mask_loss(self.mask_head(h), replaced(x, corrupted))  # eq. (5)
        value = self.likelihood.loss(self.value_head(h), x)  # eq. (6), over all columns
        return {"loss": mask + self.alpha * value, "mask": mask.detach(), "value": value.detach()}  # eq. (4)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The values of the first view from the last one."""
        x, given = batch.views[0], batch.views[-1]
        return Reconstruction(
            x, self.likelihood.mode(self.value_head(self.backbone(given))), values=self.backbone.values
        )


def replaced(x: Tensor, corrupted: Tensor) -> Tensor:
    """(B, F) bool: the columns whose value differs; a missing value equals a missing one."""
    return (x != corrupted) & ~(x.isnan() & corrupted.isnan())


@full_precision
def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits and the mask, (B, F) each."""
    return F.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype))
