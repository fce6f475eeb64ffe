"""Denoising autoencoder: mean squared error of reconstructing a sample from a corrupted copy.

Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders", ICML 2008 (masking), and "Stacked
Denoising Autoencoders", JMLR 2010 (also Gaussian noise). https://www.jmlr.org/papers/v11/vincent10a.html
B batch. The code is the backbone's feature vector. Deviations from the papers: a decoder for the kind of data (nn/decoder.py), no
stacking; the error is that of the normalized view, cross-entropy for categories; masked numbers are 0, the mean of the data;
padding and missing values are ignored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import decoder


class DenoisingAutoencoder(Method):
    requires = frozenset({"values"})

    def __init__(self, backbone: nn.Module, noise: float = 0.5, hide: float = 0.25, width: int = 32):
        super().__init__(backbone)
        if noise < 0 or not 0 <= hide < 1 or noise == hide == 0:
            raise ValueError("noise must be at least 0, hide from 0 to below 1, and one of them above 0")
        self.noise, self.hide = noise, hide
        values = self.backbone.values
        self.decoder = decoder(values, self.backbone.input_shape, self.backbone.dim, width)
        self.likelihood = values.likelihood()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        return {"loss": self.likelihood.loss(self.decoder(self.backbone(self.corrupt(x, batch))), x)}

    def corrupt(self, x: Tensor, batch: Batch) -> Tensor:
        """Mask all channels of random pixels or time steps, or random columns; then add Gaussian noise to all numbers."""
        values = self.backbone.values
        hidden = batch.uniform("hide", *values.mask_shape(x.shape[1:])) < self.hide  # (B, 1, ...)
        noise = self.noise * batch.normal("noise", *x.shape[1:]).to(x.dtype)
        return values.add_noise(values.hide(x, hidden), noise)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.restore(self.corrupt(x, batch)), values=self.backbone.values)

    def restore(self, corrupted: Tensor) -> Tensor:
        """The most likely values, of the shape of the view."""
        return self.likelihood.mode(self.decoder(self.backbone(corrupted)))

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        x = batch.views[0]
        corrupted = self.corrupt(x, batch)
        return {"denoising": {"source": x, "spoiled": corrupted, "restored": self.restore(corrupted)}}
