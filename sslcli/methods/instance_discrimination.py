"""Instance discrimination: every sample is a class of its own, and a memory holds what it looked like last.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978
B batch, S samples of the data set, P projection width. Deviations from the authors' code: the softmax over the memory is
whole (eq. (2)); theirs estimates it by noise-contrastive estimation with 4,096 draws and therefore needs the proximal
term (eq. (11)) against its variance. A whole one costs B x S x P, which is small beside the network up to some 10^5
samples. Entries begin as random directions, as there: the first pass over the data fills the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, DataInfo, Method
from sslcli.nn.memory_bank import MemoryBank
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class InstanceDiscrimination(Method):
    def __init__(
        self, backbone: nn.Module, data: DataInfo, proj_dim: int = 128, temperature: float = 0.07, momentum: float = 0.5
    ):
        super().__init__(backbone)
        self.projector = nn.Linear(self.backbone.dim, proj_dim)  # Sec. 3: the network ends in 128 dimensions
        self.memory = MemoryBank(data.samples, proj_dim)  # V
        self.temperature, self.momentum = temperature, momentum

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "global")
        v = F.normalize(self.projector(self.backbone(x)), dim=1)  # (B, P)
        loss = instance_loss(v, self.memory.keys, batch.ids, self.temperature)
        if self.training and torch.is_grad_enabled():
            old = self.memory.keys[batch.ids].to(v.dtype)
            self.memory.hold(F.normalize(old.lerp(v.detach(), 1 - self.momentum), dim=1), batch.ids)
        return {"loss": loss, "spread": spread(v)}

    def after_step(self, progress: float) -> None:
        self.memory.push()

    def details(self) -> dict[str, str]:
        return {"memory": f"{len(self.memory.keys):,} samples of width {self.memory.keys.shape[1]}"}


@full_precision
def instance_loss(v: Tensor, memory: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Eqs. (2), (3): -log exp(v_i . f_i / t) / sum over samples j of exp(v_j . f_i / t), the mean over B.

    v (B, P) and memory (S, P) are unit vectors, `ids` (B,) says where the batch stands. No gradient reaches the memory.
    """
    return F.cross_entropy(v @ memory.detach().to(v.dtype).T / temperature, ids)
