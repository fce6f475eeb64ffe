"""Ordered parallel map over daemon threads: Ctrl-C, a signal or an error ends it at once, even if a thread blocks in a read."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int | None = None) -> Iterator[R]:
    """Yield work(item) for each item in order, computed by `threads` threads at most `ahead` items (default: 4 per thread) in
    advance.

    The threads are daemons: unlike those of a ThreadPoolExecutor they are joined neither when the iteration ends early nor at
    interpreter exit, so that a thread that blocks in a read delays nothing."""
    tasks: queue.SimpleQueue[tuple[Future[R], T] | None] = queue.SimpleQueue()
    over = threading.Event()

    def serve() -> None:
        while (task := tasks.get()) is not None and not over.is_set():
            future, item = task
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    waiting: deque[Future[R]] = deque()
    try:
        for i, item in enumerate(items):
            if i < threads:
                threading.Thread(target=serve, daemon=True).start()
            waiting.append(Future())
            tasks.put((waiting[-1], item))
            if len(waiting) > (4 * threads if ahead is None else ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        over.set()
        for _ in range(threads):
            tasks.put(None)
