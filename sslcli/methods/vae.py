"""Variational autoencoder: a code with noise on it must be enough to draw the sample, and codes must look like the prior's.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014. https://arxiv.org/abs/1312.6114
Higgins et al., "beta-VAE", ICLR 2017 (beta). https://openreview.net/forum?id=Sy2fzU9gl
B batch, Z latent width, D numbers of a sample. p(x|z) is a normal distribution with one variance for all values, which is
learned (Rybkin et al., "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021, arXiv:2006.13202): fixed, it
would be the same knob as beta, and set wrong the code is ignored or its noise is. The loss is the negative bound in nats
over D. What is measured is the backbone's vector, of which mean and log-variance are linear functions. Deviations from the
papers: a convolutional decoder; one latent draw a sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import Decoder
from sslcli.nn.losses import mse_known
from sslcli.nn.precision import full_precision

LEAST = -6.0  # of the logarithm of the decoder's variance
STEPS = 2.0  # standard deviations from the middle of a traversal to its ends


class VAE(Method):
    min_loss = -math.inf

    def __init__(self, backbone: nn.Module, latent_dim: int = 32, beta: float = 1.0, width: int = 32):
        super().__init__(backbone)
        if latent_dim < 1 or beta < 0:
            raise ValueError("latent_dim is 1 or more, beta 0 or more")
        self.to_mean = nn.Linear(self.backbone.dim, latent_dim)
        self.to_log_variance = nn.Linear(self.backbone.dim, latent_dim)
        nn.init.zeros_(self.to_log_variance.weight)
        nn.init.zeros_(self.to_log_variance.bias)
        self.decoder = Decoder(latent_dim, self.backbone.input_shape, width)
        self.log_noise = nn.Parameter(torch.zeros(1))  # of the decoder: log variance
        self.beta = beta

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        mean, log_variance = self.encode(x)
        noise = batch.normal("latent", mean.shape[1]).to(mean.dtype)
        z = mean + (log_variance / 2).exp() * noise  # Sec. 2.4, the reparameterisation
        error = mse_known(self.decoder(z), x)
        spread = self.log_noise.clamp(min=LEAST).squeeze()
        nll = (error / spread.exp() + spread + math.log(2 * math.pi)) / 2  # -log p(x|z) / D
        kl = gaussian_kl(mean, log_variance)
        size = math.prod(self.backbone.input_shape)
        return {"loss": nll + self.beta * kl / size, "kl": kl.detach(), "error": error.detach()}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Z) mean and log-variance of q(z|x)."""
        h = self.backbone(x)
        return self.to_mean(h), self.to_log_variance(h).clamp(-10, 10)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.decoder(self.encode(x)[0]))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Reconstructions; what the prior draws; what becomes of a sample when one number of its code moves: that in which codes
        differ most."""
        x = batch.views[0]
        mean, _ = self.encode(x)
        prior = [batch.normal(f"prior {i}", mean.shape[1]).to(mean.dtype) for i in range(4)]
        column = int(mean.var(dim=0, unbiased=False).argmax())
        moved = {}
        for step in (-STEPS, -STEPS / 2, 0.0, STEPS / 2, STEPS):
            z = mean.clone()
            z[:, column] = step
            moved[f"{step:+g}"] = self.decoder(z)
        return {
            "reconstruction": {"source": x, "reconstruction": self.decoder(mean)},
            "samples": {f"prior {i + 1}": self.decoder(z) for i, z in enumerate(prior)},
            "traversal": {"source": x, **moved},
        }


@full_precision
def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """App. B: KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, the sum over Z and the mean over B."""
    return (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1).mean() / 2
