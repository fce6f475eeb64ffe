"""Variational autoencoder: negative evidence lower bound with a Gaussian latent code.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014. https://arxiv.org/abs/1312.6114
Higgins et al., "beta-VAE", ICLR 2017 (beta). https://openreview.net/forum?id=Sy2fzU9gl
B batch, Z latent width, D values of a sample. p(x|z) is Gaussian with one learned variance for all numbers (Rybkin et al.,
"Simple and Effective VAE Training with Calibrated Decoders", ICML 2021, arXiv:2006.13202): a fixed one would have the same effect
as beta, and a wrong value leads to posterior collapse or to an ignored prior. Categories have a categorical distribution. The loss
is the negative bound in nats over D. The backbone's feature vector is evaluated, of which mean and log-variance are linear
functions. Deviations from the papers: a decoder for the kind of data (nn/decoder.py); one latent draw per sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import decoder
from sslcli.nn.precision import full_precision

MIN_LOG_VARIANCE = -6.0  # of the decoder
RANGE = 2.0  # of a latent traversal, in standard deviations


class VAE(Method):
    requires = frozenset({"values"})
    min_loss = -math.inf

    def __init__(self, backbone: nn.Module, latent_dim: int = 32, beta: float = 1.0, width: int = 32):
        super().__init__(backbone)
        if latent_dim < 1 or beta < 0:
            raise ValueError("latent_dim must be at least 1, beta at least 0")
        self.to_mean = nn.Linear(self.backbone.dim, latent_dim)
        self.to_log_variance = nn.Linear(self.backbone.dim, latent_dim)
        nn.init.zeros_(self.to_log_variance.weight)
        nn.init.zeros_(self.to_log_variance.bias)
        values = self.backbone.values
        self.likelihood = values.likelihood()
        self.decoder = decoder(values, self.backbone.input_shape, latent_dim, width)
        # log variance of the decoder's numbers
        self.log_noise = nn.Parameter(torch.zeros(1), requires_grad=self.likelihood.has_variance)
        self.beta = beta

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        mean, log_variance = self.encode(x)
        noise = batch.normal("latent", mean.shape[1]).to(mean.dtype)
        z = mean + (log_variance / 2).exp() * noise  # Sec. 2.4, the reparameterization
        log_noise = self.log_noise.clamp(min=MIN_LOG_VARIANCE).squeeze()
        nll, error = self.likelihood.nll(self.decoder(z), x, log_noise)  # -log p(x|z) / D
        kl = gaussian_kl(mean, log_variance)
        size = math.prod(self.backbone.input_shape)
        return {"loss": nll + self.beta * kl / size, "kl": kl.detach(), "error": error.detach()}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Z) mean and log-variance of q(z|x)."""
        h = self.backbone(x)
        return self.to_mean(h), self.to_log_variance(h).clamp(-10, 10)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.decode(self.encode(x)[0]), values=self.backbone.values)

    def decode(self, z: Tensor) -> Tensor:
        """The most likely values given latent codes (B, Z), of the shape of the view."""
        return self.likelihood.mode(self.decoder(z))

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Reconstructions, samples of the prior, and a traversal of the latent dimension of largest variance."""
        x = batch.views[0]
        mean, _ = self.encode(x)
        prior = [batch.normal(f"prior {i}", mean.shape[1]).to(mean.dtype) for i in range(4)]
        column = int(mean.var(dim=0, unbiased=False).argmax())
        traversal = {}
        for step in (-RANGE, -RANGE / 2, 0.0, RANGE / 2, RANGE):
            z = mean.clone()
            z[:, column] = step
            traversal[f"{step:+g}"] = self.decode(z)
        return {
            "reconstruction": {"source": x, "reconstruction": self.decode(mean)},
            "samples": {f"prior {i + 1}": self.decode(z) for i, z in enumerate(prior)},
            "traversal": {"source": x, **traversal},
        }


@full_precision
def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """App. B: KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, summed over Z and averaged over B."""
    return (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1).mean() / 2
