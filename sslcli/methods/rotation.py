"""Rotation prediction: cross-entropy of classifying the rotation of an image by 0, 90, 180 or 270 degrees.

Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
https://arxiv.org/abs/1803.07728
B batch. All four rotations of a sample are in the same batch, as in the paper (Sec. 3.1). Rotation-invariant content provides no
signal; horizontal flips are compatible. Deviations from the authors' code: the classifier is linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.losses import cross_entropy

ROTATIONS = 4


class Rotation(Method):
    requires = frozenset({"pixels"})
    min_batch = 1

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        _, high, wide = self.backbone.input_shape
        if high != wide:
            raise ValueError(f"rotation requires square views, got {high} x {wide} pixels")
        self.classifier = nn.Linear(self.backbone.dim, ROTATIONS)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        logits = self.classifier(self.backbone(rotate_all(x)))  # (4 B, 4)
        target = torch.arange(ROTATIONS, device=x.device).repeat_interleave(len(x))
        accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
        return {"loss": cross_entropy(logits, target), "accuracy": accuracy}  # eqs. (1)-(3)


def rotate_all(x: Tensor) -> Tensor:
    """(B, C, S, S) -> (4 B, C, S, S): rotated counterclockwise by 0, 90, 180 and 270 degrees."""
    return torch.cat([x.rot90(k, dims=(2, 3)) for k in range(ROTATIONS)])
