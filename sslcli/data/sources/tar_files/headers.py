"""Read tar headers that may be malformed. Python's `tarfile` trusts sizes: a negative one makes it loop forever, and an extended
header may declare the whole file as its text."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
EXTENDED_BYTES = 1 << 20  # of a header that describes the next member: names, times
# Exceptions that tarfile raises for corrupt files, besides its own errors: it slices, computes and recurses.
READ_ERRORS = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
)


class Header(tarfile.TarInfo):
    """A header whose size is plausible."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in EXTENDED and header.size > EXTENDED_BYTES):
            raise tarfile.ReadError(f"a header declares {header.size:,} bytes")
        return header


def members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a file opened with `tarinfo=Header`, in order, each behind the previous one; none is kept in memory.

    Raises tarfile.ReadError also where tarfile would take a corrupt header for the end of the file."""
    while (member := file.next()) is not None:
        if member.size < 0 or file.offset <= member.offset:
            raise tarfile.ReadError(f"the header at byte {member.offset:,} declares {member.size:,} bytes")
        yield member
        file.members.clear()  # type: ignore[attr-defined]
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if any(file.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"corrupt header at byte {file.offset:,}")
