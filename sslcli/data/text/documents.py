"""Many documents in two arrays: their UTF-8 one after another. Ten million short ones take little more memory than their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

CHUNK = 1 << 22  # bytes of text that are decoded at a time


class Growing:
    """An array that grows at its end by a factor, so that appending in pieces copies each value a few times at most."""

    def __init__(self, dtype: Any):
        self._values = np.empty(0, dtype)
        self.size = 0

    def append(self, values: np.ndarray) -> None:
        end = self.size + len(values)
        if end > len(self._values):
            self._values.resize(max(end, len(self._values) + len(self._values) // 4, 1 << 12), refcheck=False)
        self._values[self.size : end] = values
        self.size = end

    def take(self) -> np.ndarray:
        """The values appended so far; the object is empty afterwards."""
        values, self._values = self._values, np.empty(0, self._values.dtype)
        values.resize(self.size, refcheck=False)
        self.size = 0
        return values


class Documents:
    """Document i is `content[offsets[i] : offsets[i + 1]]`, valid UTF-8.

    content: (total,) uint8. offsets: (n + 1,) int64, the first of which is 0."""

    def __init__(self, content: np.ndarray, offsets: np.ndarray):
        assert content.dtype == np.uint8, content.dtype
        assert offsets.dtype == np.int64, offsets.dtype
        self.content, self.offsets = content, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

    def chunks(self, where: np.ndarray | None = None, size: int = CHUNK) -> Iterator[tuple[int, list[str]]]:
        """All documents in order, about `size` bytes at a time: the index of the first of them, and their texts.

        where: (n,) bool, to leave out the others; the index is then that among those read."""
        first = start = 0
        while start < len(self):
            stop = int(np.searchsorted(self.offsets, self.offsets[start] + size, side="right")) - 1
            stop = min(max(stop, start + 1), len(self))
            ends = (self.offsets[start : stop + 1] - self.offsets[start]).tolist()
            block = self.content[self.offsets[start] : self.offsets[stop]].tobytes()
            wanted = range(stop - start) if where is None else np.flatnonzero(where[start:stop]).tolist()
            texts = [block[ends[i] : ends[i + 1]].decode() for i in wanted]
            if texts:
                yield first, texts
            first, start = first + len(texts), stop

    def hashes(self) -> np.ndarray:
        """(n,) int64: equal where texts are equal; others for each process."""
        return np.fromiter((hash(text) for _, texts in self.chunks() for text in texts), np.int64, len(self))


class DocumentsBuilder:
    """Collects documents. `max_bytes`: of one document; longer ones are cut before a character, and counted in `cut`."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.cut = max_bytes, 0
        self._content, self._lengths = Growing(np.uint8), Growing(np.int64)

    def __len__(self) -> int:
        return self._lengths.size

    def add(self, text: bytes) -> None:
        """Append one document, valid UTF-8."""
        self.add_all([text])

    def add_all(self, texts: Sequence[bytes]) -> None:
        """Append documents, each valid UTF-8."""
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        self.add_spans(np.frombuffer(b"".join(texts), np.uint8), starts, ends)

    def add_spans(self, block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Append the documents `block[starts[i] : ends[i]]`, which do not overlap and are in order."""
        too_long = np.flatnonzero(ends - starts > self.max_bytes)
        if len(too_long):
            self.cut += len(too_long)
            ends = ends.copy()
            for i in too_long.tolist():
                end = int(starts[i]) + self.max_bytes
                while end > starts[i] and block[end] & 0xC0 == 0x80:  # inside a character
                    end -= 1
                ends[i] = end
        inside = np.zeros(len(block) + 1, np.int8)
        inside[starts] += 1  # no two spans begin, or end, at one place
        inside[ends] -= 1
        self._content.append(block[np.cumsum(inside[:-1], dtype=np.int8).view(bool)])
        self._lengths.append(ends - starts)

    def build(self) -> Documents:
        """All documents; the object is empty afterwards."""
        lengths = self._lengths.take()
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Documents(self._content.take(), offsets)
