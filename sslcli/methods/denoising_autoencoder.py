"""Denoising autoencoder: the sample must be drawn again from a spoiled copy of it.

Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", ICML 2008 (hiding), and "Stacked
Denoising Autoencoders", JMLR 2010 (noise as well). https://www.jmlr.org/papers/v11/vincent10a.html
B batch. The code is the backbone's vector. Deviations from the papers: a convolutional decoder (nn/decoder.py), no
stacking; the error is that of the normalised view; hidden values are 0, the mean of the data; padding (NaN) stays and does
not count.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import Decoder
from sslcli.nn.losses import mse_known


class DenoisingAutoencoder(Method):
    def __init__(self, backbone: nn.Module, noise: float = 0.5, hide: float = 0.25, width: int = 32):
        super().__init__(backbone)
        if noise < 0 or not 0 <= hide < 1 or noise == hide == 0:
            raise ValueError("noise is 0 or more, hide a share below 1, and one of them is above 0")
        self.noise, self.hide = noise, hide
        self.decoder = Decoder(self.backbone.dim, self.backbone.input_shape, width)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        return {"loss": mse_known(self.decoder(self.backbone(self.spoiled(x, batch))), x)}

    def spoiled(self, x: Tensor, batch: Batch) -> Tensor:
        """Values of whole places (all channels of a pixel or a moment) hidden, then noise on everything."""
        hidden = batch.uniform("hide", 1, *x.shape[2:]) < self.hide  # (B, 1, ...)
        noise = self.noise * batch.normal("noise", *x.shape[1:]).to(x.dtype)
        return x.masked_fill(hidden & ~x.isnan(), 0.0) + noise

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.decoder(self.backbone(self.spoiled(x, batch))))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        x = batch.views[0]
        spoiled = self.spoiled(x, batch)
        return {"denoising": {"source": x, "spoiled": spoiled, "restored": self.decoder(self.backbone(spoiled))}}
