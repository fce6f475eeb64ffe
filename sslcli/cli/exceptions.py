"""Conversion of exceptions and signals into errors with a hint and an exit code: the one place that interprets an errno."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from sslcli import console
from sslcli.errors import Interrupted, MachineError, RequestError, SslError, Stopped, StorageError
from sslcli.runtime import folders

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)
_WRONG_PATH = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTEMPTY,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
    errno.EXDEV,
    errno.EBUSY,
    errno.ETXTBSY,
)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_LONG_NAME = 200  # characters of a path that are shown whole


class JobExit(BaseException):
    """Carries the exception of a job through Hydra, which catches `Exception`, to distinguish it from Hydra's own errors."""

    def __init__(self, error: BaseException):
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def stop_on_signals() -> Iterator[dict[int, Any]]:
    """Inside, a stop signal raises `JobExit(Stopped)`; training installs handlers of its own.

    Yields the previous handlers, which are restored at the end."""

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


def to_ssl_error(e: BaseException) -> SslError | None:
    """An exception as an error for users, or None for an internal error (a bug)."""
    if isinstance(e, JobExit):
        return to_ssl_error(e.error)
    if isinstance(e, SslError):
        return e
    if isinstance(e, KeyboardInterrupt):
        return Interrupted("interrupted")
    no_memory = isinstance(e, RuntimeError) and "DefaultCPUAllocator: " in str(e)  # torch's, which is not imported here
    if no_memory or isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError":
        return _out_of_memory()
    if _is_import_failure(e):
        console.detail("".join(traceback.format_exception(e)))
        return MachineError(
            f"a package cannot be imported: {e}", "`sslcli doctor` names it and the command that installs it"
        )
    return _os_error(e) if isinstance(e, OSError) else None


def _out_of_memory() -> MachineError:
    return MachineError("out of memory", "use a smaller train.batch_size or data set")


def _is_import_failure(e: BaseException) -> bool:
    """Whether a third-party package is missing or broken; torch raises a bare OSError where a library of its does not load."""
    if isinstance(e, ImportError):
        return not (e.name or "").startswith("sslcli")
    return isinstance(e, OSError) and e.errno is None and "shared object" in str(e)


def _os_error(e: OSError) -> SslError | None:
    """The error of a file that cannot be read or written; None where `e` names no file, or one of the package itself."""
    why = e.strerror or str(e)
    if e.errno in _NO_SPACE:
        return StorageError(
            f"cannot write {e.filename or 'a file'}: {why}", "free some space there, or write elsewhere"
        )
    if e.errno == errno.ENOMEM:
        return _out_of_memory()
    if e.errno in _TOO_MANY_FILES:
        return MachineError(why, "`ulimit -n 4096` allows more open files; fewer device.workers need fewer")
    name = os.fsdecode(e.filename) if isinstance(e.filename, str | bytes) else ""
    if not name or (Path(name).is_absolute() and Path(name).is_relative_to(Path(__file__).parent.parent)):
        return None
    shown = name if len(name) <= _LONG_NAME else f"{name[:100]}...{name[-50:]}"
    console.detail("".join(traceback.format_exception(e)))
    if e.errno in _NO_ACCESS:
        in_runs = Path(name).absolute().is_relative_to(folders.runs_root().absolute())
        other = "SSLCLI_RUNS=FOLDER stores runs elsewhere" if in_runs else "or name another path"
        hint = f"check its permissions and those of the folders above it (ls -ld); {other}"
        return StorageError(f"cannot access {shown}: {why}", hint)
    return RequestError(f"cannot use {shown}: {why}", "check the path") if e.errno in _WRONG_PATH else None
