"""Prediction of the item that follows a history: tied scores of all items, and histories with room for one more."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.values import Tokens


class ItemScores(nn.Module):
    """Scores (n, I) of the items of a vocabulary from rows (n, D): products with the embeddings of the backbone, without a bias.

    items: (I,) int64, the ids of the items in ascending order. `embedding` belongs to the backbone: it is not among the parameters
    of this module."""

    items: Tensor
    place: Tensor

    def __init__(self, embedding: nn.Embedding, values: Tokens):
        super().__init__()
        self.size = values.size
        self._tied = (embedding,)  # a tuple, so that the module is not registered a second time
        is_item = torch.ones(values.size, dtype=torch.bool)
        is_item[list({values.pad, *values.special})] = False
        self.register_buffer("items", is_item.nonzero()[:, 0], persistent=False)
        self.register_buffer("place", is_item.cumsum(0) - 1, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self._tied[0].weight.index_select(0, self.items))

    def of_all(self, rows: Tensor) -> Tensor:
        """Scores (n, V) of all ids, -inf for those that are no items."""
        scores = self(rows)
        return scores.new_full((len(rows), self.size), -torch.inf).index_copy(1, self.items, scores)


def item_embedding(backbone: nn.Module) -> nn.Embedding:
    """The embeddings of the items of a backbone. ValueError where it has none that outputs could share."""
    embedding = getattr(backbone, "token_embedding", None)
    if not isinstance(embedding, nn.Embedding):
        raise ValueError(
            f"scores of items share the embeddings of the backbone, and {type(backbone).__name__} has none: backbone=sasrec"
        )
    return embedding


def leave_room(x: Tensor, values: Tokens) -> tuple[Tensor, Tensor]:
    """Histories x (B, L), followed by padding, with at most L - 1 items: of a full one the first item is left out. And the number
    of items (B,) int64."""
    full = x[:, -1:] != values.pad
    later = torch.cat([x[:, 1:], torch.full_like(x[:, :1], values.pad)], dim=1)
    out = torch.where(full, later, x)
    return out, (out != values.pad).sum(dim=1)


def is_last(x: Tensor, values: Tokens) -> Tensor:
    """Bool, of the shape of x (B, L): the last token of each sample that is not padding."""
    present = x != values.pad
    return present & (present.flip(1).cumsum(dim=1).flip(1) == 1)
