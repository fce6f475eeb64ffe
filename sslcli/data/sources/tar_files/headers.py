"""Headers of tar files that may lie. Python's `tarfile` believes sizes: a negative one sends it in a circle for ever, and an
extended header may announce the whole file as its text."""

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
EXTENDED_BYTES = 1 << 20  # of a header that describes the next one: names, times
# what tarfile raises for a broken file, besides its own errors: it slices, counts and calls itself
BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, ArithmeticError, RecursionError)


class Header(tarfile.TarInfo):
    """A member whose size is possible."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Header:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in EXTENDED and found.size > EXTENDED_BYTES):
            raise tarfile.ReadError(f"a header announces {found.size:,} bytes")
        return found


def members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Of a file opened with `tarinfo=Header`, in order, each behind the one before; none of them is kept in memory.

    tarfile.ReadError also where tarfile would take a broken header for the end."""
    while (member := file.next()) is not None:
        if member.size < 0 or file.offset <= member.offset:
            raise tarfile.ReadError(f"the header at byte {member.offset:,} announces {member.size:,} bytes")
        yield member
        file.members.clear()  # type: ignore[attr-defined]
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if any(file.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"broken header at byte {file.offset:,}")
