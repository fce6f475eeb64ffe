"""How the data floor speaks while it works: one line now, or progress through a slow job.

A data set is built by a plain function of its settings, so what it says goes through two hooks that a front end may
set.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable


def _stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(label: str, done: int, total: int) -> None:
    return


_say: Callable[[str], None] = _stderr
_progress: Callable[[str, int, int], None] = _silent


def connect(say: Callable[[str], None] | None = None, progress: Callable[[str, int, int], None] | None = None) -> None:
    """Set the hooks: `say(text)` and `progress(label, done, total)`; None puts the default back (stderr; silence)."""
    global _say, _progress
    _say, _progress = say or _stderr, progress or _silent


def say(text: str) -> None:
    _say(text)


def progress(label: str, done: int, total: int) -> None:
    _progress(label, done, total)


def shown(name: str) -> str:
    """A file or class name that cannot harm a terminal: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)


def typed(key: str, value: str) -> str:
    """`key=value` as it is typed: quoted for a shell where it has to be."""
    return shlex.quote(f"{key}={shown(value)}")


def count(n: int, noun: str, many: str | None = None) -> str:
    """`1 file`, `3,000 files`."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def size(n: float) -> str:
    """Bytes for people: `170.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1000
    raise AssertionError
