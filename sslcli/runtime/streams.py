"""Standard output and error that do not raise: a failed print must not end a run."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sslcli.errors import StorageError

PERMANENT = (
    errno.EPIPE,
    errno.EBADF,
    errno.EIO,
    errno.ENXIO,
)  # a closed pipe or terminal does not return


class TolerantStream:
    """A text stream whose `write` and `flush` do not raise; the first error is stored in `failure`.

    After a broken pipe the file descriptor points to the null device, so that libraries and the interpreter's shutdown can write to
    it. After a full disk the text stays in the buffer and is written later, if there is space again.
    """

    def __init__(self, inner: Any):
        self.inner = inner
        self.failure: OSError | ValueError | None = None
        self.lost = False  # whether text was lost from the buffer too

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
            if getattr(e, "errno", errno.EBADF) in PERMANENT:
                self.discard()
            return False

    def close(self) -> None:
        """Try once more to write the buffer."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            self.flush()
            self.failure = failure if self.failure is not None or self.lost else None
            self.discard()

    def discard(self) -> None:
        """Redirect to the null device, including the buffer."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.inner.fileno())
            os.close(null)
            self.inner.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextlib.contextmanager
def tolerant_streams() -> Iterator[Callable[[int], int]]:
    """Make `sys.stdout` and `sys.stderr` tolerant inside the block. Yields a function that corrects an exit code: results that
    could not be written are an error, unless their reader (`| head`) closed the pipe."""
    if isinstance(sys.stdout, TolerantStream):  # nested commands
        yield lambda code: code
        return
    open_missing()
    before = sys.stdout, sys.stderr
    out, err = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
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
    """Open closed standard streams (`>&-`) on the null device: otherwise the next opened file takes their descriptor, and output of
    libraries goes into that file."""
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
            os.set_blocking(number, True)  # another program on the terminal may have set it to non-blocking
