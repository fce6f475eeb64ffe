"""Instance discrimination: softmax cross-entropy with every sample as a class of its own, over a memory bank.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978
B batch, S samples of the data set, P projection width. All other samples are negatives, which prevents collapse. Deviations from
the authors' code: the full softmax over the memory (eq. (2)); theirs approximates it by noise-contrastive estimation with 4,096
draws and therefore needs the proximal term (eq. (11)) against its variance. The full softmax costs B x S x P, small beside the
network up to some 10^5 samples. Entries are initialized as random directions, as there; the first epoch fills the memory.
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
            self.memory.stage(F.normalize(old.lerp(v.detach(), 1 - self.momentum), dim=1), batch.ids)
        return {"loss": loss, "spread": spread(v)}

    def after_step(self, progress: float) -> None:
        self.memory.push()

    def details(self) -> dict[str, str]:
        return {"memory": f"{len(self.memory.keys):,} samples of width {self.memory.keys.shape[1]}"}


@full_precision
def instance_loss(v: Tensor, memory: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Eqs. (2), (3): -log exp(v_i . f_i / t) / sum over samples j of exp(v_j . f_i / t), the mean over B.

    v (B, P) and memory (S, P) are unit vectors, `ids` (B,) the rows of the batch in the memory, which is detached.
    """
    return F.cross_entropy(v @ memory.detach().to(v.dtype).T / temperature, ids)
