"""Log messages and progress of the data package, through two hooks that a front end sets.

A data set is built by a plain function of its settings, which has no console to write to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def _log_to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ignore_progress(label: str, done: int, total: int) -> None:
    return


_log: Callable[[str], None] = _log_to_stderr
_show_progress: Callable[[str, int, int], None] = _ignore_progress


def set_hooks(
    log: Callable[[str], None] | None = None, progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Set the hooks `log(text)` and `progress(label, done, total)`; None restores the default (stderr; no progress)."""
    global _log, _show_progress
    _log, _show_progress = log or _log_to_stderr, progress or _ignore_progress


def log(text: str) -> None:
    _log(text)


def show_progress(label: str, done: int, total: int) -> None:
    _show_progress(label, done, total)
