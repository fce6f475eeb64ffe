"""Headers of image files: sizes, modes and formats without decoding, and which files are unreadable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sslcli.console import human_bytes, plural
from sslcli.data.folders.contents import FileList
from sslcli.data.folders.headers import FileHeaders, fixed_sample, resident_budget
from sslcli.data.images import decode
from sslcli.data.images.decode import MIN_SIDE
from sslcli.errors import RequestError
from sslcli.runtime.resources import free_memory

FileLoader = Callable[[str], str | bytes]  # path -> what `decode.load` takes; raises BadImage


class Headers(FileHeaders[decode.Header]):
    """Those of images."""

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

    def header(path: str) -> decode.Header:
        return decode.read_header(load(path), max_pixels)

    headers.read(fixed_sample(paths), header, "reading image headers")
    if resident is not False and headers.size and not headers.complete:
        width, height = headers.size
        if resident is True or width * height * len(paths) <= resident_budget():
            headers.read(paths, header, "reading image headers")
    return headers


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


def check_cache_memory(cache: int, total: int, channels: int, resident: bool | str) -> str:
    """A note on the memory that `total` images of `cache` x `cache` pixels take. RequestError where that is more than half of the
    free memory, unless `dataset.resident` is true."""
    size, free = cache * cache * channels * total, free_memory()
    if resident is not True and size > free // 2:
        fitting = int((free // 2 / (channels * total)) ** 0.5)
        raise RequestError(
            f"dataset.cache={cache} takes {human_bytes(size)} for {plural(total, 'image')}, more than half of the free memory "
            f"({human_bytes(free)})",
            (f"dataset.cache={fitting}, or " if fitting >= MIN_SIDE else "") + "dataset.resident=true",
        )
    return (
        f"cached in memory as {cache}x{cache} pixels ({human_bytes(size)}): the largest square of each image, resized"
    )


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
