"""Signals that stop a run: caught for the time of a block, and checked by the training loop between two steps."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from sslcli.runtime.rendezvous import under_launcher

SAVE_BEFORE_END = 60  # seconds before a Slurm job's time limit
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP")


def slurm_end() -> float:
    """Unix time at which this Slurm job reaches its time limit; infinity outside one, or where an earlier job set it."""
    word = os.environ.get("SLURM_JOB_END_TIME", "")
    end = int(word) if word.isascii() and word.isdigit() else math.inf
    return end if end > time.time() else math.inf


class StopSignal:
    """Whether a stop was requested by one of `NAMES` (SIGHUP: unless `nohup` ignores it); the loop checks it between steps.

    The handler only sets a flag: saving inside a handler deadlocks. A second SIGINT exits at once, the last checkpoint
    intact."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.received_at = 0.0
        self.deadline = slurm_end() - SAVE_BEFORE_END

    @property
    def number(self) -> int:
        """Number of the signal; 0 without one. A minute before the limit of a Slurm job it is SIGTERM's."""
        if self.received is None and time.time() > self.deadline:
            return int(signal.SIGTERM)
        return int(self.received or 0)

    def __bool__(self) -> bool:
        return self.number != 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        # torchrun forwards a signal that the terminal has already sent to every process: not a second request
        repeated = time.monotonic() - self.received_at > 1 or not under_launcher()
        if self.received is signal.SIGINT and number == signal.SIGINT and repeated:
            with contextlib.suppress(OSError):  # standard error may be closed
                os.write(2, b"\nexiting now; the last checkpoint is intact\n")
            os._exit(130)
        self.received, self.received_at = signal.Signals(number), time.monotonic()


def nohup(name: str) -> bool:
    """Whether this process is meant to outlive its terminal: `nohup` ignores SIGHUP before it starts a command."""
    return name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@contextlib.contextmanager
def stop_signals(catch: bool = True) -> Iterator[StopSignal]:
    """Catch the signals inside the block and restore the previous handlers after it. `catch=False`: handlers stay as they are."""
    stop = StopSignal()
    if not catch:
        yield stop
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name) and not nohup(name)]
    try:
        previous = {n: signal.signal(n, stop.handle) for n in numbers}
    except ValueError:  # not the main thread (a joblib worker): signals cannot be caught here
        yield stop
        return
    try:
        yield stop
    finally:
        for n, handler in previous.items():
            signal.signal(n, handler)
