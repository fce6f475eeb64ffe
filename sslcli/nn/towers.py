"""The space that two encoders share: projections of both, and which captions of a batch are equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import gather
from sslcli.nn.precision import full_precision


class TwoTowers(nn.Module):
    """Linear projections without bias of the features of images (B, image_dim) and captions (B, text_dim) to unit vectors (B,
    width).

    Weights from N(0, 1 / dim), as in the authors' code of CLIP."""

    def __init__(self, image_dim: int, text_dim: int, width: int):
        super().__init__()
        self.image_projection = nn.Linear(image_dim, width, bias=False)
        self.text_projection = nn.Linear(text_dim, width, bias=False)
        for layer in (self.image_projection, self.text_projection):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def image(self, h: Tensor) -> Tensor:
        return unit(self.image_projection(h))

    def text(self, h: Tensor) -> Tensor:
        return unit(self.text_projection(h))

    def describe(self, tower: nn.Module) -> str:
        """`BERT, dim 128, trained; shared space of 256`."""
        name, state = type(tower.backbone).__name__, "frozen" if tower.frozen else "trained"
        return f"{name}, dim {tower.dim}, {state}; shared space of {self.image_projection.out_features}"


@full_precision
def unit(z: Tensor) -> Tensor:
    return F.normalize(z, dim=1)


@torch.no_grad()
def equal_rows(x: Tensor) -> Tensor:
    """(B, N) bool: whether row j of the global batch equals row i of this process. x: (B, L) int64.

    Rows are compared by a hash of 64 bits, so that no matrix of B x N x L is made."""
    factors = torch.arange(1, x.shape[1] + 1, device=x.device) * -7046029254386353131  # 2^64 / the golden ratio, signed
    mixed = (x + 1) * (factors | 1)
    key = (mixed ^ (mixed >> 29)).mul(-4658895280553007687).sum(dim=1)  # int64 wraps
    return key[:, None] == gather(key)[None, :]


@torch.no_grad()
def share_right(logits: Tensor, same: Tensor) -> Tensor:
    """The share of rows of logits (B, N) whose largest entry is one where `same` (B, N) is true."""
    return same.gather(1, logits.argmax(dim=1, keepdim=True)).to(logits.dtype).mean()
