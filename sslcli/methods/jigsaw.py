"""Jigsaw: the tiles of a picture were shuffled; which of a set of permutations was it?

Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
https://arxiv.org/abs/1603.09246
B batch, G tiles. Every tile passes through the backbone by itself (their context-free network); the vectors together are
classified. Deviations from the paper: tiles come from pictures of the size at hand and are enlarged where they
would be tiny (nn/tiles.py); the grid is 2 x 2 for pictures below 24 pixels; gaps are an eighth of a cell (theirs 11 of 75
pixels); far fewer permutations, which small data can tell apart (they found 64 to 1,000 useful, Table 4).
"""

from __future__ import annotations

import math
from itertools import permutations as all_orders

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import cross_entropy
from sslcli.nn.tiles import cut, tile_size


class Jigsaw(Method):
    modalities = ("image",)

    def __init__(
        self, backbone: nn.Module, grid: int | str = "auto", permutations: int = 64, hidden_dim: Width = "auto"
    ):
        super().__init__(backbone)
        shape = self.backbone.input_shape
        if grid != "auto" and (isinstance(grid, str) or not 2 <= grid <= 3):
            raise ValueError(f"grid is 2, 3 or auto, not {grid!r}")
        self.grid: int = grid if isinstance(grid, int) else 3 if min(shape[1:]) >= 24 else 2
        tile_size(shape, self.grid)
        self.orders: Tensor
        self.register_buffer("orders", far_apart(self.grid**2, permutations), persistent=False)  # (P, G)
        hidden = self.head_width(hidden_dim, 512)
        self.embed = nn.Linear(self.backbone.dim, hidden)  # fc6, shared by the tiles
        self.classifier = mlp(self.grid**2 * hidden, 2 * hidden, len(self.orders))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        tiles, order = self.shuffled(batch)
        logits = self.solve(tiles)
        accuracy = (logits.detach().argmax(dim=1) == order).float().mean()
        return {"loss": cross_entropy(logits, order), "accuracy": accuracy}

    def shuffled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, G, C, s, s): at place j the tile that was at orders[o, j]; and o (B,)."""
        (x,) = batch.expect_views(1, "weak", "global")
        tiles = cut(x, self.grid, batch.uniform("place", self.grid**2, 2))
        order = (batch.uniform("order") * len(self.orders)).long()
        at = self.orders[order][:, :, None, None, None].expand_as(tiles)
        return tiles.gather(1, at), order

    def solve(self, tiles: Tensor) -> Tensor:
        """(B, P) logits of the permutations."""
        b, g = tiles.shape[:2]
        h = F.relu(self.embed(self.backbone(tiles.flatten(0, 1))))
        return self.classifier(h.view(b, g * h.shape[1]))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The cells as they were shuffled, and put back as the method believes."""
        x = batch.views[0]
        tiles, order = self.shuffled(batch)
        believed = self.orders[self.solve(tiles).argmax(dim=1)]  # (B, G)
        mixed = rearranged(x, self.grid, self.orders[order])
        return {
            "jigsaw": {"source": x, "shuffled": mixed, "solved": rearranged(mixed, self.grid, believed.argsort(dim=1))}
        }

    def details(self) -> dict[str, str]:
        size = tile_size(self.backbone.input_shape, self.grid)
        return {"puzzle": f"{self.grid} x {self.grid} tiles of {size} pixels, {len(self.orders)} permutations"}


def far_apart(count: int, wanted: int) -> Tensor:
    """(P, count) int64: permutations of 0..count-1 that differ in many places, at most `wanted`; always the same ones.

    Algorithm 1 of the paper: one after the other, that whose mean Hamming distance to those chosen is largest (the first of
    such). Of nine tiles 4,096 evenly spaced candidates are looked at instead of 362,880.
    """
    if wanted < 2:
        raise ValueError(f"a puzzle needs at least 2 permutations, not {wanted}")
    total = math.factorial(count)
    step = max(1, total // 4096)
    candidates = torch.tensor([order for i, order in enumerate(all_orders(range(count))) if i % step == 0])
    chosen = [0]
    distance = torch.zeros(len(candidates), dtype=torch.int64)
    while len(chosen) < min(wanted, len(candidates)):
        distance += (candidates != candidates[chosen[-1]]).sum(dim=1)
        distance[chosen[-1]] = -total * count  # never again
        chosen.append(int(distance.argmax()))
    return candidates[chosen]


def rearranged(x: Tensor, grid: int, order: Tensor) -> Tensor:
    """(B, C, H, W) with cell order[b, j] at place j; what fills no cell stays."""
    b, c, h, w = x.shape
    high, wide = h // grid, w // grid
    cells = x[:, :, : high * grid, : wide * grid].view(b, c, grid, high, grid, wide).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(b, grid * grid, c, high, wide)
    cells = cells.gather(1, order[:, :, None, None, None].expand_as(cells)).view(b, grid, grid, c, high, wide)
    out = x.clone()
    out[:, :, : high * grid, : wide * grid] = cells.permute(0, 3, 1, 4, 2, 5).reshape(b, c, high * grid, wide * grid)
    return out
