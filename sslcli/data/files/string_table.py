"""A sequence of strings in two tensors: it takes little more memory than the bytes, and worker processes share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch


class StringTable(Sequence[str]):
    """An immutable sequence of strings. Undecodable bytes of file names are preserved."""

    def __init__(self, values: Iterable[str]):
        parts = [v.encode("utf-8", "surrogateescape") for v in values]
        self.ends = torch.tensor([0, *accumulate(map(len, parts))], dtype=torch.int64)
        self.content = torch.frombuffer(bytearray(b"".join(parts) or b"\0"), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        start, end = self.ends[at % len(self) :][:2].tolist()
        return self.content[start:end].numpy().tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        content = self.content.numpy().tobytes()
        for start, end in pairwise(self.ends.tolist()):
            yield content[start:end].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self.content.numpy().tobytes())
