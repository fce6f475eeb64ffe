"""Work in threads whose end is not waited for: Ctrl-C, a signal or an error leaves at once, whatever a thread is reading."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int | None = None) -> Iterator[R]:
    """work(item) of each item, in their order, by some threads that are at most `ahead` items (4 a thread) in front of what was
    taken.

    The threads are daemons: unlike those of a ThreadPoolExecutor they are joined neither when the iteration is broken off nor
    when Python ends, so one that hangs in a read holds up nothing."""
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
