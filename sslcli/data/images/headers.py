"""Headers of image files: sizes, modes and formats without decoding, and which files are unreadable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcli.console import plural
from sslcli.data.folders.contents import FileList
from sslcli.data.images import decode
from sslcli.data.images.parallel import parallel_map
from sslcli.errors import RequestError
from sslcli.rng import derive, order
from sslcli.runtime.resources import free_memory

SAMPLED = 512
RESIDENT_BYTES = 2 << 30

FileLoader = Callable[[str], str | bytes]  # path -> what `decode.load` takes; raises BadImage


@dataclass
class Headers:
    """The headers of all files, or of a fixed sample of them."""

    total: int
    good: dict[str, decode.Header] = field(default_factory=dict)  # by path
    bad: dict[str, str] = field(default_factory=dict)  # path -> reason

    @property
    def complete(self) -> bool:
        return len(self.good) + len(self.bad) == self.total

    @property
    def sampled(self) -> int | None:
        """How many files were opened, where that was not all."""
        return None if self.complete else len(self.good) + len(self.bad)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) where all images have the same size."""
        sizes = {(h.width, h.height) for h in self.good.values()}
        return next(iter(sizes)) if len(sizes) == 1 else None

    @property
    def channels(self) -> int:
        return 1 if self.good and all(h.mode in decode.GRAY for h in self.good.values()) else 3

    def summary(self) -> dict[str, Any]:
        return {
            "modes": dict(Counter(h.mode for h in self.good.values())),
            "formats": dict(Counter(h.format for h in self.good.values())),
            "sizes": Counter((h.width, h.height) for h in self.good.values()).most_common(5),
            "headers_read": len(self.good) + len(self.bad),
        }


def read_headers(groups: Sequence[FileList], resident: bool | str, max_pixels: int, load: FileLoader = str) -> Headers:
    """Read the headers of a fixed sample of files; of all files only where the images may fit in memory, that is, where the
    sample has one size."""
    paths = [p for files in groups for p in files.paths]
    headers = Headers(len(paths))

    def read(subset: list[str]) -> None:
        def one(i: int) -> decode.Header | str:
            try:
                return decode.read_header(load(subset[i]), max_pixels)
            except decode.BadImage as error:
                return error.message

        for path, result in zip(subset, parallel_map(one, len(subset), "reading image headers"), strict=True):
            if isinstance(result, str):
                headers.bad[path] = result
            else:
                headers.good[path] = result

    sample = [paths[i] for i in order(derive(0, "headers"), 0, len(paths))[:SAMPLED].tolist()]
    read(sample)
    if resident is not False and headers.size and not headers.complete:
        width, height = headers.size
        if resident is True or width * height * len(paths) <= resident_budget():
            first = set(sample)
            read([p for p in paths if p not in first])
    return headers


def resident_budget() -> int:
    """Bytes that resident images may take."""
    return min(RESIDENT_BYTES, free_memory() // 2)


def fits_memory(resident: bool | str, headers: Headers, channels: int) -> bool:
    """Resolve `dataset.resident`: auto is true where all images have one size and fit the budget. Raises RequestError for
    `true` where sizes differ."""
    if resident is False:
        return False
    if headers.size is None:
        if resident is True:
            sizes = Counter((h.width, h.height) for h in headers.good.values())
            raise RequestError(
                f"dataset.resident=true requires images of one size, but there are {len(sizes)} sizes, such as "
                + ", ".join(f"{w}x{h}" for (w, h), _ in sizes.most_common(3)),
                "dataset.resident=auto",
            )
        return False
    width, height = headers.size
    return resident is True or (headers.complete and width * height * channels * headers.total <= resident_budget())


def describe_headers(headers: Headers, notes: list[str]) -> None:
    """Add notes on sizes, transparency and animation."""
    good = headers.good.values()
    sampled = "" if headers.complete else f" (of {len(good):,} sampled)"
    if headers.size:
        notes.append(f"all {headers.size[0]}x{headers.size[1]}{sampled}")
    else:
        sizes = {(h.width, h.height) for h in good}
        short = sorted(min(h.width, h.height) for h in good)
        notes.append(
            f"{len(sizes):,} sizes, short side {short[0]}..{short[-1]}, median {short[len(short) // 2]}{sampled}"
        )
    alpha = sum(h.alpha for h in good)
    if alpha:
        notes.append(f"{plural(alpha, 'image')} with transparency{sampled}, composited on black")
    animated = sum(h.animated for h in good)
    if animated:
        notes.append(f"{plural(animated, 'image')} with several frames{sampled}, of which the first is read")
