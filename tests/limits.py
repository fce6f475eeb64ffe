"""Limits on processor time, which the load of the machine does not affect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sslcli.cli.hydra_command import gc_disabled

T = TypeVar("T")


def cost(work: Callable[[], T], limit: float, tries: int = 3) -> tuple[T, float]:
    """The result of `work`, and the processor seconds of this thread; the least of `tries` runs while it exceeds `limit`.

    Garbage collection is off, as when `sslcli` starts: it would visit the objects of all other tests.
    """
    least = float("inf")
    for _ in range(tries):
        with gc_disabled():
            start = time.thread_time()
            result = work()
            least = min(least, time.thread_time() - start)
        if least <= limit:
            break
    return result, least
