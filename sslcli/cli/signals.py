"""Signal handlers outside training; training installs its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sslcli.cli.exceptions import JobExit
from sslcli.errors import Stopped

_STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[dict[int, Any]]:
    """Inside, a stop signal raises `JobExit(Stopped)`. Yields the previous handlers, which are restored at the end."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise JobExit(Stopped(f"stopped by {signal.Signals(number).name}"))

    try:
        previous = {n: signal.signal(n, handle) for name in _STOP_SIGNALS if (n := getattr(signal, name, None))}
    except ValueError:  # only the main thread may set handlers, and only it receives signals
        yield {}
        return
    try:
        yield previous
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
