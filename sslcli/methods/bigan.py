"""BiGAN: generator and encoder are trained against a discriminator of (sample, code) pairs.

Donahue, Krähenbühl & Darrell, "Adversarial Feature Learning", ICLR 2017. https://arxiv.org/abs/1605.09782
Dumoulin et al., "Adversarially Learned Inference", ICLR 2017. https://arxiv.org/abs/1606.00704
B batch, Z latent width. The backbone with a linear layer is the encoder. Where the discriminator cannot separate (x, E(x)) from
(G(z), z), the encoder inverts the generator (Theorem 2). One backward pass updates all three, each by the gradient of its own
loss. Deviations from both papers: hinge losses and a discriminator with spectral norm (Miyato et al., ICLR 2018) instead of log
losses and batch norm, which was stable on small data without tuning; encoder and generator have one loss each; a convolutional
generator (nn/decoder.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.adversary import Critic, critic_loss, with_frozen_parameters
from sslcli.nn.decoder import decoder
from sslcli.nn.stats import spread


class BiGAN(Method):
    requires = frozenset({"values", "continuous"})
    min_loss = -math.inf
    adversarial = True

    def __init__(self, backbone: nn.Module, latent_dim: int = 32, width: int = 32):
        super().__init__(backbone)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim = latent_dim
        self.to_code = nn.Linear(self.backbone.dim, latent_dim)  # E, with the backbone
        self.generator = decoder(self.backbone.values, self.backbone.input_shape, latent_dim, width)  # G
        self.critic = Critic(self.backbone.input_shape, width, latent_dim)  # D

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        real = self.backbone.values.complete(x)
        code = self.to_code(self.backbone(x))  # E(x)
        z = batch.normal("code", self.latent_dim).to(code.dtype)
        absent = ~self.backbone.values.present(x)
        generated = self.generator(z).masked_fill(absent, 0.0)  # padding must not reveal which is real
        critic = critic_loss(self.critic(real, code.detach()), self.critic(generated.detach(), z))
        encoder = with_frozen_parameters(self.critic, real, code).mean()
        generator = -with_frozen_parameters(self.critic, generated, z).mean()
        metrics = {"critic": critic.detach(), "encoder": encoder.detach(), "generator": generator.detach()}
        return {"loss": critic + encoder + generator, **metrics, "spread": spread(code)}

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.generator(self.to_code(self.backbone(x))), values=self.backbone.values)

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Reconstructions G(E(x)), and samples G(z) of the prior."""
        reconstruction = self.reconstruct(batch)
        prior = [batch.normal(f"prior {i}", self.latent_dim).to(reconstruction.predicted.dtype) for i in range(4)]
        return {
            "reconstruction": reconstruction.columns(),
            "samples": {f"prior {i + 1}": self.generator(z) for i, z in enumerate(prior)},
        }
