"""Decode or read many files in a pool of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslcli.data import notify
from sslcli.runtime.resources import usable_cores
from sslcli.runtime.thread_pool import ordered_map

CHUNK = 32  # items per task: passing single items between threads takes longer than decoding a small image


def parallel_map(work: Callable[[int], Any], n: int, label: str) -> list[Any]:
    """[work(0), ..., work(n - 1)], computed in threads (Pillow releases the GIL), with progress under `label`."""

    def chunk(start: int) -> list[Any]:
        return [work(i) for i in range(start, min(start + CHUNK, n))]

    out: list[Any] = []
    for part in ordered_map(chunk, range(0, n, CHUNK), decoder_threads()):
        out += part
        notify.show_progress(label, len(out), n)
    return out


def decoder_threads() -> int:
    """Number of threads that decode files: more than 8 do not help."""
    return min(8, usable_cores())
