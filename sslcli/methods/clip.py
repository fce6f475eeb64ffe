"""CLIP: symmetric cross-entropy between images and their captions, with the other samples of the global batch as negatives.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, Sec. 2.3 and Fig. 3.
https://arxiv.org/abs/2103.00020
B batch of this process, N global batch, P width of the shared space. Both encoders have a linear projection without bias; the
temperature is learned as the logarithm of its inverse, at most ln 100, from 1 / .07. Negatives prevent collapse. Deviations from
the paper: an image and a caption that equals its own are no negatives; the target is uniform over all captions equal to the own one
(Yang et al., "Unified Contrastive Learning in Image-Text-Label Space", CVPR 2022, eq. 3 and 4, with equal captions as labels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, CaptionMethod, Tower
from sslcli.nn.dist import gather
from sslcli.nn.heads import Width
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread
from sslcli.nn.towers import share_right

MAX_SCALE = 100.0  # of the logits, Sec. 2.5


class CLIP(CaptionMethod):
    def __init__(self, backbone: nn.Module, tower: Tower, proj_dim: Width = "auto", temperature: float = 0.07):
        super().__init__(backbone, tower, proj_dim)
        if not temperature >= 1 / MAX_SCALE:
            raise ValueError(f"temperature must be at least {1 / MAX_SCALE}, got {temperature}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        image, text, same = self.encode(batch)
        scale = self.log_scale.exp()
        loss, correct = clip_loss(image, text, same, scale)
        return {"loss": loss, "contrast_acc": correct, "spread": spread(image), "temperature": 1 / scale.detach()}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.log_scale.clamp_(max=math.log(MAX_SCALE))  # the parameter, so that its gradient is not lost at the limit


@full_precision
def clip_loss(image: Tensor, text: Tensor, same: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Half of -sum over j of t(i, j) log softmax_j(scale image_i . text_j), and the same from texts to images; and the share of
    images whose most similar caption is a right one. Averaged over this process's rows i.

    image, text: unit vectors (B, P). same: (B, N) bool, whether caption j of the global batch equals caption i of this process; t
    is uniform over these j. scale: scalar."""
    images, texts = gather(image), gather(text)  # (N, P)
    target = same.to(image.dtype) / same.sum(dim=1, keepdim=True)
    to_text, to_image = scale * image @ texts.T, scale * text @ images.T  # (B, N)
    loss = (F.cross_entropy(to_text, target) + F.cross_entropy(to_image, target)) / 2
    return loss, share_right(to_text, same)
