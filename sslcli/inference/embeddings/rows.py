"""Embeddings as they are written to a file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sslcli.inference.inputs import Inputs
from sslcli.runs import Record

CHUNK = 4096  # rows that are in memory at a time


@dataclass(frozen=True)
class EmbeddedRows:
    """n embedded samples.

    kept: (n,) int64, their numbers among the inputs, ascending. vectors: (n, dim) or (n, tokens, dim) float32, mapped from a file.
    meta: what identifies the encoder, the samples and the settings, as plain JSON."""

    inputs: Inputs
    kept: np.ndarray
    vectors: np.ndarray
    meta: Record

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def columns(self) -> list[str]:
        titled, labeled = len(self.inputs.titles) > 0, self.inputs.labeled
        return ["id", "path", *(["title"] if titled else []), *(["label"] if labeled else [])]

    def chunks(self) -> Iterator[slice]:
        return (slice(start, min(start + CHUNK, len(self))) for start in range(0, len(self), CHUNK))

    def texts(self, column: str, part: slice) -> list[str | float | None]:
        """The cells of a column of some rows; None without a label."""
        inputs, numbers = self.inputs, self.kept[part].tolist()
        if column == "label":
            return [inputs.label(i) for i in numbers]
        cells = {"id": inputs.ids, "path": inputs.paths, "title": inputs.titles}[column]
        return [cells[i] for i in numbers]

    def cells(self, part: slice) -> Iterator[tuple[str | float | None, ...]]:
        """Some rows of all columns but the vectors."""
        return zip(*(self.texts(column, part) for column in self.columns), strict=True)

    def values(self) -> bool:
        """Whether labels are numbers."""
        return self.inputs.dataset.task == "value"
