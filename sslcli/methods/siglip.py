"""SigLIP: for each image and each caption of the global batch, a binary decision of whether they belong together.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, Sec. 3.2 and Algorithm 1. https://arxiv.org/abs/2303.15343
B batch of this process, N global batch, P width of the shared space. Scale and bias of the logits are learned. Deviations from
the paper: the scale begins at 20, theirs at 10, for short runs have no time to raise it; a caption that equals the one of an
image is right for it, too; the bias begins at -ln(N - 1), the prior that one of N captions belongs to an image (`auto`), which is
-10.4 for the paper's N of 32,768, where theirs begins at -10.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, CaptionMethod, DataInfo, Tower
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread
from sslcli.nn.towers import share_right


class SigLIP(CaptionMethod):
    def __init__(
        self,
        backbone: nn.Module,
        tower: Tower,
        data: DataInfo,
        proj_dim: Width = "auto",
        scale: float = 20.0,
        bias: float | str = "auto",
    ):
        super().__init__(backbone, tower, proj_dim)
        if scale <= 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        if isinstance(bias, str) and bias != "auto":
            raise ValueError(f"bias must be a number or auto, got {bias!r}")
        together = data.samples / max(1, data.steps_per_epoch)  # N, nearly
        start = -math.log(max(1.0, together - 1)) if isinstance(bias, str) else float(bias)
        self.bias = nn.Parameter(torch.tensor(start))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        image, text, same = self.encode(batch)
        loss, correct = siglip_loss(image, text, same, self.log_scale.exp(), self.bias)
        return {"loss": loss, "contrast_acc": correct, "spread": spread(image), "scale": self.log_scale.detach().exp()}


@full_precision
def siglip_loss(image: Tensor, text: Tensor, same: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """-log sigmoid(z(i, j) (scale image_i . text_j + bias)), summed over the captions j of the global batch and averaged over this
    process's images i; z is 1 where `same`, else -1. And the share of images whose most similar caption is a right one.

    image, text: unit vectors (B, P). same: (B, N) bool."""
    logits = scale * image @ gather(text).T + bias  # (B, N)
    sign = 2 * same.to(logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum(dim=1).mean(), share_right(logits, same)
