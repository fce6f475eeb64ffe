"""Exceptions, each with its exit code, and helpers for messages. `SslError` is an error of use; `assert` marks internal ones."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class SslError(Exception):
    """Base class of expected failures: printed as `error: ...` and `hint: ...`, without a traceback."""

    code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self):  # workers and sweep jobs pass errors between processes
        return type(self), (self.message, self.hint)


class RequestError(SslError):
    """Wrong usage: command, key, value or path. Raised before a run folder is created."""

    code = 2


class MachineError(SslError):
    """The environment lacks something: memory, a device or a package."""

    code = 3


class TrainingError(SslError):
    """Training failed: non-finite values, collapse, or no valid checkpoint."""

    code = 4


class StorageError(SslError):
    """Nothing can be written: disk full, read-only, quota."""

    code = 5


class RunInUseError(SslError):
    """Another process holds the lock of the run."""

    code = 6


class DataError(SslError):
    """The data cannot be used: empty, unreadable, or too many corrupt files."""

    code = 7


class BadSample(DataError):
    """A sample that cannot be read. The message is the reason, without the name of the sample."""


class Stopped(SslError):
    """Stopped by a signal; the run is saved and can be resumed."""

    code = 75


class Interrupted(SslError):
    """Stopped by Ctrl-C; the run is saved."""

    code = 130


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to `word`, or None where none is close."""
    by_lower = {c.lower(): c for c in sorted(choices, reverse=True)}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def command(*words: object) -> str:
    """An sslcli command line, quoted for the shell."""
    return shlex.join(["sslcli", *map(str, words)])


def target(text: str, example: str, endings: tuple[str, ...] = (), key: str = "out") -> Path:
    """The file or folder given by `out=`, or by another key, in an existing folder. RequestError."""
    out = Path(text).expanduser()
    if not out.name:
        raise RequestError(
            f"{key}={text} is not the name of something to write" if text else f"{key} is not given", example
        )
    if endings and out.suffix.lower() not in endings:
        raise RequestError(f"{key}={text}: a {endings[0]} file is written", f"{key}={out.with_suffix(endings[0])}")
    if not out.absolute().parent.is_dir():
        raise RequestError(f"{key}={text}: there is no folder {out.absolute().parent}")
    return out


def listing(names: Iterable[str], at_most: int = 12) -> str:
    """`a, b, c and 4 more`, for messages."""
    names = list(names)
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def first_line(e: BaseException | str) -> str:
    """The first non-empty line of an error message; the type's name where the message is empty."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0] if lines else type(e).__name__
