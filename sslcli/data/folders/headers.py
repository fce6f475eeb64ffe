"""Headers of files, read without decoding the samples: of a fixed sample of the files, or of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sslcli.data.files.parallel import parallel_map
from sslcli.errors import BadSample
from sslcli.rng import derive, order
from sslcli.runtime.resources import free_memory

SAMPLED = 512
RESIDENT_BYTES = 2 << 30

H = TypeVar("H")


@dataclass
class FileHeaders(Generic[H]):
    """The headers of all files, or of a fixed sample of them."""

    total: int
    good: dict[str, H] = field(default_factory=dict)  # by path
    bad: dict[str, str] = field(default_factory=dict)  # path -> reason

    @property
    def complete(self) -> bool:
        return len(self.good) + len(self.bad) == self.total

    @property
    def sampled(self) -> int | None:
        """How many files were opened, where that was not all."""
        return None if self.complete else len(self.good) + len(self.bad)

    def read(self, paths: Sequence[str], header: Callable[[str], H], what: str) -> None:
        """Reads those of `paths` that were not read before. `header` raises BadSample; `what` is shown while it takes long."""
        new = [path for path in paths if path not in self.good and path not in self.bad]

        def one(i: int) -> tuple[H | None, str]:
            try:
                return header(new[i]), ""
            except BadSample as error:
                return None, error.message

        for path, (found, reason) in zip(new, parallel_map(one, len(new), what), strict=True):
            if found is None:
                self.bad[path] = reason
            else:
                self.good[path] = found


def fixed_sample(paths: Sequence[str]) -> list[str]:
    """At most `SAMPLED` of the paths, always the same."""
    return [paths[i] for i in order(derive(0, "headers"), 0, len(paths))[:SAMPLED].tolist()]


def resident_budget() -> int:
    """Bytes that samples in memory may take."""
    return min(RESIDENT_BYTES, free_memory() // 2)
