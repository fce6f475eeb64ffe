"""Patch position: two tiles of a picture, the middle one and a neighbour; where does the neighbour lie?

Doersch, Gupta & Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015.
https://arxiv.org/abs/1505.05192
B batch. Deviations from the paper: one pair a sample and step, from a 3 x 3 grid over the whole view, where theirs lie on
grids all over large pictures; the gap is an eighth of a cell (theirs half a patch) in cells of 8 pixels and more; against
chromatic aberration each tile is standardised channel by channel (they drop two channels); tiny tiles are enlarged
(nn/tiles.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import cross_entropy
from sslcli.nn.tiles import cut, tile_size

MIDDLE = 4  # of the nine cells
NEIGHBOURS = (0, 1, 2, 3, 5, 6, 7, 8)


class PatchPosition(Method):
    modalities = ("image",)

    def __init__(self, backbone: nn.Module, hidden_dim: Width = "auto"):
        super().__init__(backbone)
        self.size = tile_size(self.backbone.input_shape, 3)
        hidden = self.head_width(hidden_dim, 1024)
        self.classifier = mlp(2 * self.backbone.dim, hidden, len(NEIGHBOURS))
        self.places: Tensor
        self.register_buffer("places", torch.tensor(NEIGHBOURS), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        tiles = cut(x, 3, batch.uniform("place", 9, 2))  # (B, 9, C, s, s)
        where = (batch.uniform("neighbour") * len(NEIGHBOURS)).long()  # (B,)
        asked = tiles[torch.arange(len(x), device=x.device), self.places[where]]
        h = self.backbone(torch.cat([tiles[:, MIDDLE], asked])).view(2, len(x), -1)
        logits = self.classifier(torch.cat([h[0], h[1]], dim=1))
        accuracy = (logits.detach().argmax(dim=1) == where).float().mean()
        return {"loss": cross_entropy(logits, where), "accuracy": accuracy}

    def details(self) -> dict[str, str]:
        return {"tiles": f"{self.size} x {self.size} pixels"}
