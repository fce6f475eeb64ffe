"""Autoencoder: the backbone's vector must be enough to draw the sample again.

Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.
The code is the backbone's output: its `dim` is the bottleneck. The decoder is convolutional (nn/decoder.py); the
paper's was a mirrored perceptron, pretrained layer by layer. The error is that of the normalised view; padding (NaN)
does not count.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import Decoder
from sslcli.nn.losses import mse_known


class Autoencoder(Method):
    def __init__(self, backbone: nn.Module, width: int = 32):
        super().__init__(backbone)
        self.decoder = Decoder(self.backbone.dim, self.backbone.input_shape, width)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        return {"loss": mse_known(self.decoder(self.backbone(x)), x)}

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        return Reconstruction(x, self.decoder(self.backbone(x)))
