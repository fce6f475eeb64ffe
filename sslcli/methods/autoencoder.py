"""Autoencoder: mean squared reconstruction error through the backbone's feature vector as the bottleneck.

Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.
The code is the backbone's output of width `dim`. The error is that of the normalized view; padding (NaN) is ignored.
Deviations from the paper: a convolutional decoder (nn/decoder.py) instead of a mirrored MLP, and no layer-wise pretraining.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import Decoder
from sslcli.nn.losses import masked_mse


class Autoencoder(Method):
    def __init__(self, backbone: nn.Module, width: int = 32):
        super().__init__(backbone)
        self.decoder = Decoder(self.backbone.dim, self.backbone.input_shape, width)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        return {"loss": masked_mse(self.decoder(self.backbone(x)), x)}

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.decoder(self.backbone(x)))
