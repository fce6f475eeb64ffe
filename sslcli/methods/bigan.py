"""BiGAN: a generator draws samples from codes, an encoder says the codes of samples, and a critic of pairs tells both apart.

Donahue, Krähenbühl & Darrell, "Adversarial Feature Learning", ICLR 2017. https://arxiv.org/abs/1605.09782
Dumoulin et al., "Adversarially Learned Inference", ICLR 2017. https://arxiv.org/abs/1606.00704
B batch, Z latent width. The backbone, with a linear layer, is the encoder. Where neither pair can be told from the other,
the encoder is the generator's inverse (Theorem 2). All play in one backward pass, each moved by its own loss alone.
Deviations from both papers: hinge losses and a critic with spectral norm (Miyato et al., ICLR 2018) for log losses and batch
norm, which held on small data without tuning; encoder and generator have one loss each; convolutional generator
(nn/decoder.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.adversary import Critic, critic_loss, frozen
from sslcli.nn.decoder import Decoder
from sslcli.nn.stats import spread


class BiGAN(Method):
    min_loss = -math.inf
    adversarial = True

    def __init__(self, backbone: nn.Module, latent_dim: int = 32, width: int = 32):
        super().__init__(backbone)
        if latent_dim < 1:
            raise ValueError("latent_dim is 1 or more")
        self.latent_dim = latent_dim
        self.to_code = nn.Linear(self.backbone.dim, latent_dim)  # E, with the backbone
        self.generator = Decoder(latent_dim, self.backbone.input_shape, width)  # G
        self.critic = Critic(self.backbone.input_shape, width, latent_dim)  # D

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        known = x.nan_to_num()
        code = self.to_code(self.backbone(x))  # E(x)
        z = batch.normal("code", self.latent_dim).to(code.dtype)
        made = self.generator(z).masked_fill(x.isnan(), 0.0)  # padding is no clue
        judge = critic_loss(self.critic(known, code.detach()), self.critic(made.detach(), z))
        encoder = frozen(self.critic, known, code).mean()
        generator = -frozen(self.critic, made, z).mean()
        told = {"critic": judge.detach(), "encoder": encoder.detach(), "generator": generator.detach()}
        return {"loss": judge + encoder + generator, **told, "spread": spread(code)}

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.generator(self.to_code(self.backbone(x))))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """G(E(x)), and what codes of the prior become."""
        found = self.reconstruct(batch)
        prior = [batch.normal(f"prior {i}", self.latent_dim).to(found.predicted.dtype) for i in range(4)]
        return {
            "reconstruction": found.columns(),
            "samples": {f"prior {i + 1}": self.generator(z) for i, z in enumerate(prior)},
        }
