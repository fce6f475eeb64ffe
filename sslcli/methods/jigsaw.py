"""Jigsaw: cross-entropy of classifying the permutation of shuffled image tiles.

Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
https://arxiv.org/abs/1603.09246
B batch, G tiles. The backbone encodes every tile separately (their context-free network); the concatenated vectors are
classified. Deviations from the paper: tiles of small images are upsampled (nn/tiles.py); the grid is 2 x 2 for images below 24
pixels; gaps are an eighth of a cell (theirs 11 of 75 pixels); far fewer permutations, for small data (they found 64 to 1,000
useful, Table 4).
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
from sslcli.nn.tiles import extract_tiles, tile_size


class Jigsaw(Method):
    requires = frozenset({"pixels"})

    def __init__(
        self, backbone: nn.Module, grid: int | str = "auto", permutations: int = 64, hidden_dim: Width = "auto"
    ):
        super().__init__(backbone)
        shape = self.backbone.input_shape
        if grid != "auto" and (isinstance(grid, str) or not 2 <= grid <= 3):
            raise ValueError(f"grid must be 2, 3 or auto, got {grid!r}")
        self.grid: int = grid if isinstance(grid, int) else 3 if min(shape[1:]) >= 24 else 2
        tile_size(shape, self.grid)
        self.orders: Tensor
        self.register_buffer("orders", distant_permutations(self.grid**2, permutations), persistent=False)  # (P, G)
        hidden = self.head_width(hidden_dim, 512)
        self.embed = nn.Linear(self.backbone.dim, hidden)  # fc6, shared by the tiles
        self.classifier = mlp(self.grid**2 * hidden, 2 * hidden, len(self.orders))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        tiles, order = self.shuffle(batch)
        logits = self.classify(tiles)
        accuracy = (logits.detach().argmax(dim=1) == order).float().mean()
        return {"loss": cross_entropy(logits, order), "accuracy": accuracy}

    def shuffle(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tiles (B, G, C, s, s), at position j the tile from position orders[o, j]; and the permutation index o (B,)."""
        (x,) = batch.expect_views(1, "weak", "global")
        tiles = extract_tiles(x, self.grid, batch.uniform("place", self.grid**2, 2))
        order = (batch.uniform("order") * len(self.orders)).long()
        at = self.orders[order][:, :, None, None, None].expand_as(tiles)
        return tiles.gather(1, at), order

    def classify(self, tiles: Tensor) -> Tensor:
        """(B, P) logits of the permutations."""
        b, g = tiles.shape[:2]
        h = F.relu(self.embed(self.backbone(tiles.flatten(0, 1))))
        return self.classifier(h.view(b, g * h.shape[1]))

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The shuffled image, and the image rearranged by the predicted permutation."""
        x = batch.views[0]
        tiles, order = self.shuffle(batch)
        predicted = self.orders[self.classify(tiles).argmax(dim=1)]  # (B, G)
        shuffled = rearrange(x, self.grid, self.orders[order])
        return {
            "jigsaw": {
                "source": x,
                "shuffled": shuffled,
                "solved": rearrange(shuffled, self.grid, predicted.argsort(dim=1)),
            }
        }

    def details(self) -> dict[str, str]:
        size = tile_size(self.backbone.input_shape, self.grid)
        return {"puzzle": f"{self.grid} x {self.grid} tiles of {size} pixels, {len(self.orders)} permutations"}


def distant_permutations(count: int, limit: int) -> Tensor:
    """(P, count) int64: at most `limit` permutations of 0..count-1 with large pairwise Hamming distances; deterministic.

    Algorithm 1 of the paper: greedily add the permutation with the largest mean Hamming distance to those chosen (the first of
    several). Of nine tiles 4,096 evenly spaced candidates are considered instead of 362,880.
    """
    if limit < 2:
        raise ValueError(f"permutations must be at least 2, got {limit}")
    total = math.factorial(count)
    step = max(1, total // 4096)
    candidates = torch.tensor([order for i, order in enumerate(all_orders(range(count))) if i % step == 0])
    selected = [0]
    distance = torch.zeros(len(candidates), dtype=torch.int64)
    while len(selected) < min(limit, len(candidates)):
        distance += (candidates != candidates[selected[-1]]).sum(dim=1)
        distance[selected[-1]] = -total * count  # not selected again
        selected.append(int(distance.argmax()))
    return candidates[selected]


def rearrange(x: Tensor, grid: int, order: Tensor) -> Tensor:
    """(B, C, H, W) with cell order[b, j] at position j; pixels outside the grid are unchanged."""
    b, c, h, w = x.shape
    high, wide = h // grid, w // grid
    cells = x[:, :, : high * grid, : wide * grid].view(b, c, grid, high, grid, wide).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(b, grid * grid, c, high, wide)
    cells = cells.gather(1, order[:, :, None, None, None].expand_as(cells)).view(b, grid, grid, c, high, wide)
    out = x.clone()
    out[:, :, : high * grid, : wide * grid] = cells.permute(0, 3, 1, 4, 2, 5).reshape(b, c, high * grid, wide * grid)
    return out
