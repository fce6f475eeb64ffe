"""Decode or read many images in a pool of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslcli.data import notify
from sslcli.runtime.resources import usable_cores
from sslcli.runtime.thread_pool import ordered

CHUNK = 32  # of the work in one go: handing over each alone costs more than a small image takes


def parallel_map(work: Callable[[int], Any], n: int, label: str) -> list[Any]:
    """work(0) ... work(n - 1) in threads (Pillow lets them run together), in order, with progress."""

    def some(start: int) -> list[Any]:
        return [work(i) for i in range(start, min(start + CHUNK, n))]

    out: list[Any] = []
    for part in ordered(some, range(0, n, CHUNK), decoder_threads()):
        out += part
        notify.show_progress(label, len(out), n)
    return out


def decoder_threads() -> int:
    """Threads that decode."""
    return min(8, usable_cores())
