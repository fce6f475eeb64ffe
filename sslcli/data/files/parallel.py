"""Decode or read many files in a pool of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslcli.data import notify
from sslcli.runtime.resources import usable_cores
from sslcli.runtime.thread_pool import ordered_map

CHUNK = 32  # items per task: passing single items between threads takes longer than decoding a small image


def parallel_map(work: Callable[[int], Any], n: int, label: str, chunk: int = CHUNK) -> list[Any]:
    """[work(0), ..., work(n - 1)], computed in threads (decoders release the GIL), `chunk` items at a time, with progress under
    `label`."""

    def part_from(start: int) -> list[Any]:
        return [work(i) for i in range(start, min(start + chunk, n))]

    out: list[Any] = []
    for part in ordered_map(part_from, range(0, n, chunk), decoder_threads()):
        out += part
        notify.show_progress(label, len(out), n)
    return out


def decoder_threads() -> int:
    """Number of threads that decode files: more than 8 do not help."""
    return min(8, usable_cores())
