"""Convert histories of items to the inputs of the encoder in this folder. Requires NumPy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

PAD, FIRST = 0, 2  # the id of padding, and of the first item; 1 is the mask of the training


class Preprocessor:
    """max_length: the number L of items of an input. ids: the id of each item by its name."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        content = Path(folder, "items.json").read_text(encoding="utf-8", errors="surrogateescape")
        self.max_length: int = about["max_length"]
        self.ids = {name: id for id, name in enumerate(json.loads(content)["items"], FIRST)}

    def encode(self, histories: Iterable[Sequence[object]]) -> np.ndarray:
        """(n, L) int64: the last L items of each history, then padding.

        histories: the names of items, the latest last. Items that were not in training are left out."""
        rows = [[self.ids[name] for name in map(str, history) if name in self.ids] for history in histories]
        x = np.full((len(rows), self.max_length), PAD, np.int64)
        for to, row in zip(x, rows, strict=True):
            latest = row[-self.max_length :]
            to[: len(latest)] = latest
        return x
