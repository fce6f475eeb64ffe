"""Standard output and error that never raise: what cannot be printed must not end the work that is being done."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sslcli.errors import StorageError

FOR_GOOD = (
    errno.EPIPE,
    errno.EBADF,
    errno.EIO,
    errno.ENXIO,
)  # a reader or a terminal that went away does not come back


class Stream:
    """A text stream whose `write` and `flush` do not raise; the first failure is kept in `failure`.

    After a broken pipe the file descriptor points to the null device, so that libraries and the end of the interpreter can
    write to it too. After a full disk the text stays in the buffer and is written later, if there is room again.
    """

    def __init__(self, inner: Any):
        self.inner = inner
        self.failure: OSError | ValueError | None = None
        self.lost = False  # whether text is in no buffer either

    def write(self, text: str) -> int:
        self.lost |= not self._try(lambda: self.inner.write(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._try(self.inner.flush)

    def _try(self, do: Callable[[], object]) -> bool:
        try:
            do()
            return True
        except (OSError, ValueError) as e:  # ValueError: closed
            self.failure = self.failure or e
            if getattr(e, "errno", errno.EBADF) in FOR_GOOD:
                self.discard()
            return False

    def close(self) -> None:
        """The last attempt at what is still in the buffer."""
        if self.failure is not None:
            kept, self.failure = self.failure, None
            self.flush()
            self.failure = kept if self.failure is not None or self.lost else None
            self.discard()

    def discard(self) -> None:
        """From now on to the null device, with what is still in the buffer."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.inner.fileno())
            os.close(null)
            self.inner.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextlib.contextmanager
def lasting() -> Iterator[Callable[[int], int]]:
    """While inside, `sys.stdout` and `sys.stderr` do not raise. Yields what turns an exit code into the right one: results that
    could not be written are no success, unless their reader (`| head`) went away."""
    if isinstance(sys.stdout, Stream):  # a command inside a command
        yield lambda code: code
        return
    open_missing()
    before = sys.stdout, sys.stderr
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = out, err

    def checked(code: int) -> int:
        out.close()
        if code or out.failure is None or getattr(out.failure, "errno", None) == errno.EPIPE:
            return code
        from sslcli import console

        why = getattr(out.failure, "strerror", None) or out.failure
        console.error(StorageError(f"cannot write the results to standard output: {why}"))
        return StorageError.code

    try:
        yield checked
    finally:
        out.close()
        err.close()
        sys.stdout, sys.stderr = before


def open_missing() -> None:
    """A standard stream that is closed (`>&-`) becomes the null device: else the next file that is opened takes its place, and
    whatever a library prints goes into that file."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for the whole process
        with contextlib.suppress(OSError):
            os.set_blocking(number, True)  # a terminal shared with a program that set it otherwise
