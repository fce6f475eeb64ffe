"""Context encoder: mean squared error of inpainting a masked block, optionally with an adversarial loss.

Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016. https://arxiv.org/abs/1604.07379
B batch. The backbone sees the view with the block at 0, the mean of the data; the decoder predicts the whole view, and the error
is that inside the block. With `adversary` above 0 a discriminator sees the completed view; one backward pass updates both, each
by the gradient of its own loss. For series the block is a time span. Deviations from the paper: the block is anywhere (their
"random block" is a set of smaller ones); no overlap of 7 pixels with a tenfold weight; the discriminator has a hinge loss and
spectral norm (Miyato et al., ICLR 2018) instead of the paper's log loss; a convolutional decoder from one vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.adversary import Critic, critic_loss, with_frozen_parameters
from sslcli.nn.block_masks import block_mask
from sslcli.nn.decoder import decoder


class ContextEncoder(Method):
    requires = frozenset({"values", "continuous", "blocks"})

    def __init__(self, backbone: nn.Module, hide: float = 0.5, adversary: float = 0.0, width: int = 32):
        super().__init__(backbone)
        if not 0 < hide < 1 or adversary < 0:
            raise ValueError("hide must be a fraction of each side between 0 and 1, adversary a weight of at least 0")
        shape = self.backbone.input_shape
        self.hide, self.adversary = hide, adversary
        self.decoder = decoder(self.backbone.values, shape, self.backbone.dim, width)
        self.likelihood = self.backbone.values.likelihood()
        self.critic = Critic(shape, width) if adversary else None
        self.adversarial = adversary > 0
        self.min_loss = -math.inf if self.adversarial else 0.0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.inpaint(x, batch)
        error = self.likelihood.loss(predicted, x, hidden)  # eq. (1)
        if self.critic is None:
            return {"loss": error}
        real = self.backbone.values.complete(x)
        completed = torch.where(hidden, predicted, real)
        critic = critic_loss(self.critic(real), self.critic(completed.detach()))
        generator = -with_frozen_parameters(self.critic, completed).mean()  # eq. (2), of the generator
        loss = (1 - self.adversary) * error + self.adversary * generator + critic  # eq. (3)
        return {"loss": loss, "error": error.detach(), "critic": critic.detach()}

    def inpaint(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The predicted view (B, C, *size), and the mask of the block (B, 1, *size)."""
        values = self.backbone.values
        _, *size = values.mask_shape(x.shape[1:])
        hidden = block_mask(batch.uniform("block", len(size)), tuple(size), self.hide)[:, None]
        return self.decoder(self.backbone(values.hide(x, hidden))), hidden

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted, hidden = self.inpaint(x, batch)
        predicted = self.likelihood.mode(predicted)
        return Reconstruction(x, predicted, hidden.expand_as(x), values=self.backbone.values)

    def details(self) -> dict[str, str]:
        return {"block": f"{self.hide:.0%} of each side" + (", with a discriminator" if self.adversary else "")}
