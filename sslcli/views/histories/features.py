"""What a linear model has of a history without a backbone: which items it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from sslcli.data.histories.next_items import FIRST
from sslcli.nn.values import Tokens
from sslcli.views.modality import RawFeatures

MOST = 2048  # items, the most frequent ones of training


class ItemBag(RawFeatures):
    """How often each item is in a view, for the most frequent items of training; each vector has unit length."""

    fitted: ClassVar[bool] = True

    def __init__(self, values: Tokens):
        self.size = values.size
        self.chosen = torch.arange(FIRST, min(values.size, FIRST + MOST))

    def fit(self, batches: Iterator[Tensor]) -> None:
        if self.size <= FIRST + MOST:
            return
        counts = torch.zeros(self.size, dtype=torch.int64)
        for x in batches:
            counts += x.flatten().bincount(minlength=self.size).cpu()
        counts[:FIRST] = -1
        self.chosen = counts.argsort(descending=True, stable=True)[:MOST].sort().values

    def transform(self, x: Tensor) -> Tensor:
        x = x.cpu()
        place = torch.full((self.size,), len(self.chosen))
        place[self.chosen] = torch.arange(len(self.chosen))
        bag = torch.zeros(len(x), len(self.chosen) + 1)
        bag.scatter_add_(1, place[x], torch.ones_like(x, dtype=torch.float32))
        return torch.nn.functional.normalize(bag[:, :-1], dim=1)
