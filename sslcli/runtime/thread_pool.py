"""Ordered parallel map over daemon threads: Ctrl-C, a signal or an error ends it at once, even if a thread blocks in a read."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

EXIT_WAIT = 2.0  # seconds at most that the exit of the interpreter waits for items that are being computed
_computing: set[int] = set()  # threads that compute an item
_exiting = threading.Event()


def ordered_map(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int | None = None) -> Iterator[R]:
    """Yield work(item) for each item in order, computed by `threads` threads at most `ahead` items (default: 4 per thread) in
    advance.

    The threads are daemons: unlike those of a ThreadPoolExecutor they are not joined when the iteration ends early, so a thread
    that blocks in a read delays nothing. The exit of the interpreter waits for the items at hand, for `EXIT_WAIT` seconds at
    most: a thread that returns from C++ code to a finalized interpreter would abort the process."""
    tasks: queue.SimpleQueue[tuple[Future[R], T] | None] = queue.SimpleQueue()
    over = threading.Event()

    def serve() -> None:
        while (task := tasks.get()) is not None and not over.is_set():
            future, item = task
            _computing.add(threading.get_ident())
            try:
                if _exiting.is_set():
                    return
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)
            finally:
                _computing.discard(threading.get_ident())

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


@atexit.register
def _wait_for_items() -> None:
    """Let no thread start another item, and wait for those at hand."""
    _exiting.set()
    deadline = time.monotonic() + EXIT_WAIT
    while _computing and time.monotonic() < deadline:
        time.sleep(0.002)
