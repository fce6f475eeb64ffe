"""Context encoder: a block of the picture is cut out, and what was there must be painted from the rest.

Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016. https://arxiv.org/abs/1604.07379
B batch. The backbone sees the view with the block at 0, the mean of the data; the decoder paints the whole view, and what
lies in the block is judged. With `adversary` above 0 a discriminator looks at the painted view, everything outside of the
block left as it was: the two play against each other in one backward pass, each moved by its own loss alone. Works on
series, where the block is a span. Deviations from the paper: the block lies anywhere (their "random block" is a set of
smaller ones); no overlap of 7 pixels that counts ten times; the discriminator has a hinge loss and spectral norm (Miyato et
al., ICLR 2018) for the paper's log loss; a convolutional decoder from one vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.adversary import Critic, critic_loss, frozen
from sslcli.nn.block_masks import block
from sslcli.nn.decoder import Decoder
from sslcli.nn.losses import mse_known


class ContextEncoder(Method):
    def __init__(self, backbone: nn.Module, hide: float = 0.5, adversary: float = 0.0, width: int = 32):
        super().__init__(backbone)
        if not 0 < hide < 1 or adversary < 0:
            raise ValueError("hide is a share of each side between 0 and 1, adversary a weight of 0 or more")
        shape = self.backbone.input_shape
        self.hide, self.adversary = hide, adversary
        self.decoder = Decoder(self.backbone.dim, shape, width)
        self.critic = Critic(shape, width) if adversary else None
        self.adversarial = adversary > 0  # type: ignore[misc]
        self.min_loss = -math.inf if self.adversarial else 0.0  # type: ignore[misc]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        painted, hidden = self.painted(x, batch)
        error = mse_known(painted, x, hidden)  # eq. (1)
        if self.critic is None:
            return {"loss": error}
        known = x.nan_to_num()
        whole = torch.where(hidden, painted, known)
        judge = critic_loss(self.critic(known), self.critic(whole.detach()))
        fooled = -frozen(self.critic, whole).mean()  # eq. (2): the painter's side
        loss = (1 - self.adversary) * error + self.adversary * fooled + judge  # eq. (3)
        return {"loss": loss, "error": error.detach(), "critic": judge.detach()}

    def painted(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The view as it is painted, and where the block was (B, 1, *size)."""
        hidden = block(batch.uniform("block", x.ndim - 2), tuple(x.shape[2:]), self.hide)[:, None]
        return self.decoder(self.backbone(x.masked_fill(hidden & ~x.isnan(), 0.0))), hidden

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        painted, hidden = self.painted(x, batch)
        return Reconstruction(x, painted, hidden.expand_as(x))

    def details(self) -> dict[str, str]:
        return {"block": f"{self.hide:.0%} of each side" + (", judged by an adversary" if self.adversary else "")}
