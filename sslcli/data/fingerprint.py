"""Hashes that identify data."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable


def content_hash(path: str) -> bytes:
    """SHA-256 of a file. Raises OSError unless it is a regular file: reading a FIFO would block forever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def fingerprint(n: int, parts: Iterable[bytes | memoryview]) -> str:
    """`n-HASH` with 16 hex digits: the number of samples and a hash of `parts`, which identify them."""
    h = hashlib.sha256()
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return f"{n}-{h.hexdigest()[:16]}"
