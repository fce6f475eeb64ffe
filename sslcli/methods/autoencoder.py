"""Autoencoder: mean squared reconstruction error through the backbone's feature vector as the bottleneck.

Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.
The code is the backbone's output of width `dim`. The error is that of the normalized view, cross-entropy for categories; padding
and missing values are ignored. Deviations from the paper: a decoder for the kind of data (nn/decoder.py) instead of a mirrored
MLP, and no layer-wise pretraining.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.decoder import decoder


class Autoencoder(Method):
    requires = frozenset({"values"})

    def __init__(self, backbone: nn.Module, width: int = 32):
        super().__init__(backbone)
        values = self.backbone.values
        self.decoder = decoder(values, self.backbone.input_shape, self.backbone.dim, width)
        self.likelihood = values.likelihood()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        return {"loss": self.likelihood.loss(self.decoder(self.backbone(x)), x)}

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted = self.likelihood.mode(self.decoder(self.backbone(x)))
        return Reconstruction(x, predicted, values=self.backbone.values)
