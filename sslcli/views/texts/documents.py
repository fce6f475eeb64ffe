"""Whole documents as strings, decoded when they are read."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.data.text.preprocessor import TextPreprocessor

AT_ONCE = 1024  # documents that are decoded together


class Documents:
    """The documents `ids` (n,) of a source. A tensor of positions (m,) selects some of them."""

    def __init__(self, source: Source, ids: Tensor, preprocessor: TextPreprocessor):
        self.source, self.ids, self.preprocessor = source, ids, preprocessor

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        for part in self.ids.split(AT_ONCE):
            yield from self.preprocessor.decode([self.source.read(i) for i in part.tolist()])

    def __getitem__(self, positions: Tensor) -> Documents:
        return Documents(self.source, self.ids[positions], self.preprocessor)
