"""Relative patch position: cross-entropy of classifying where a tile is located relative to the central one.

Doersch, Gupta & Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015.
https://arxiv.org/abs/1505.05192
B batch. Deviations from the paper: one pair per sample and step, from a 3 x 3 grid over the whole view, theirs from grids
anywhere in large images; the gap is an eighth of a cell (theirs half a patch) in cells of 8 pixels and more; against chromatic
aberration each tile is standardized per channel (they drop two channels); small tiles are upsampled (nn/tiles.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import cross_entropy
from sslcli.nn.tiles import extract_tiles, tile_size

CENTER = 4  # of the nine cells
NEIGHBORS = (0, 1, 2, 3, 5, 6, 7, 8)


class PatchPosition(Method):
    requires = frozenset({"pixels"})

    def __init__(self, backbone: nn.Module, hidden_dim: Width = "auto"):
        super().__init__(backbone)
        self.size = tile_size(self.backbone.input_shape, 3)
        hidden = self.head_width(hidden_dim, 1024)
        self.classifier = mlp(2 * self.backbone.dim, hidden, len(NEIGHBORS))
        self.places: Tensor
        self.register_buffer("places", torch.tensor(NEIGHBORS), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        tiles = extract_tiles(x, 3, batch.uniform("place", 9, 2))  # (B, 9, C, s, s)
        position = (batch.uniform("neighbour") * len(NEIGHBORS)).long()  # (B,)
        neighbors = tiles[torch.arange(len(x), device=x.device), self.places[position]]
        h = self.backbone(torch.cat([tiles[:, CENTER], neighbors])).view(2, len(x), -1)
        logits = self.classifier(torch.cat([h[0], h[1]], dim=1))
        accuracy = (logits.detach().argmax(dim=1) == position).float().mean()
        return {"loss": cross_entropy(logits, position), "accuracy": accuracy}

    def details(self) -> dict[str, str]:
        return {"tiles": f"{self.size} x {self.size} pixels"}
