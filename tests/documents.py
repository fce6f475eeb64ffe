"""A data set of documents for tests: 60 of them, of 0 to 59 tokens, whose ids tell which document and token they are."""

from __future__ import annotations

import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.storage import Ragged
from sslcli.nn.values import Tokens

FIRST = 5  # ids below are special
LENGTH = 16
COUNT = 60
VALUES = Tokens(FIRST + 60 * COUNT, pad=0, mask=4, special=(0, 1, 2, 3, 4), start=2, separator=3)


def content(document: int) -> torch.Tensor:
    """The ids of a document, in order."""
    return FIRST + 60 * document + torch.arange(document, dtype=torch.int32)


def dataset(length: int = LENGTH) -> Dataset:
    lengths = torch.arange(COUNT)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    storage = Ragged(torch.cat([content(i) for i in range(COUNT)]), offsets)
    return Dataset(
        "documents", "text", (length,), ArraySource(storage, torch.arange(COUNT) % 2), None, ("a", "b"), values=VALUES
    )
