"""Blocks that are finished, in a hidden folder beside the file to write, so that a stopped command continues.

.E.npz.partial/identity.json   what is computed: another command does not continue it
.E.npz.partial/vectors.bin     the rows of finished blocks, float32
.E.npz.partial/journal.jsonl   after each few blocks: how many of them, and of rows, are in vectors.bin, and what was unreadable
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np

from sslcli.errors import RequestError, RunInUseError, StorageError
from sslcli.inference.features import ROWS, Block
from sslcli.runs import Record
from sslcli.runs.files import append_line, open_file, read_json, read_lines, size_of, write_json

COMMIT_SECONDS = 1.0  # between lines of the journal
IDENTITY, VECTORS, JOURNAL = "identity.json", "vectors.bin", "journal.jsonl"


class Staging:
    """The blocks of one file that are finished. `identity`: what determines their bits.

    RequestError where the folder has blocks of something else, RunInUseError where another process writes them, StorageError."""

    def __init__(self, out: Path, identity: Record):
        self.folder = out.with_name(f".{out.name}.partial")
        self.next, self.rows, self.shape = 0, 0, None
        self.unreadable: dict[int, str] = {}
        self._pending: dict[int, str] = {}
        self._committed = time.monotonic()
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = _lock(self.folder)
            if size_of(self.folder, IDENTITY) is None:
                write_json(self.folder, IDENTITY, identity)
            elif read_json(self.folder, IDENTITY) != json.loads(json.dumps(identity)):
                raise RequestError(
                    f"{self.folder} has the beginning of out={out.name}, of another encoder, other samples or settings",
                    f"another out=; or remove it: rm -r {self.folder}",
                )
            self._resume()
            self._file = open_file(self.folder, VECTORS, os.O_RDWR | os.O_CREAT)
            os.ftruncate(self._file, self.rows * self._row_bytes)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            raise _storage_error(error, out) from None

    shape: tuple[int, ...] | None  # of one row

    @property
    def _row_bytes(self) -> int:
        return 4 * math.prod(self.shape or ())

    def _resume(self) -> None:
        """Read the journal up to what vectors.bin really holds."""
        size = size_of(self.folder, VECTORS) or 0
        for line in read_lines(self.folder, JOURNAL)[0]:
            shape = tuple(line["shape"]) if line["shape"] is not None else None
            if shape is not None and line["rows"] * 4 * math.prod(shape) > size:
                break
            self.next, self.rows, self.shape = line["blocks"], line["rows"], shape or self.shape
            self.unreadable |= {int(i): reason for i, reason in line["unreadable"].items()}

    def add(self, block: Block) -> None:
        """Append the next block. StorageError; what was committed stays."""
        assert block.number == self.next, (block.number, self.next)
        try:
            if len(block.ids):
                self.shape = tuple(block.features.shape[1:])
                rest = memoryview(np.ascontiguousarray(block.features.numpy(), "<f4").tobytes())
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            self.next, self.rows = self.next + 1, self.rows + len(block.ids)
            self._pending |= block.unreadable
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self.commit()
        except OSError as error:
            raise _storage_error(error, self.folder) from None

    def commit(self) -> None:
        """Flush the rows, then write how many there are."""
        os.fsync(self._file)
        line = {
            "blocks": self.next,
            "rows": self.rows,
            "shape": None if self.shape is None else list(self.shape),
            "unreadable": {str(i): reason for i, reason in self._pending.items()},
        }
        append_line(self.folder, JOURNAL, json.dumps(line))
        self.unreadable |= self._pending
        self._pending, self._committed = {}, time.monotonic()

    def finish(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers (n,) of the samples that could be read, and their vectors (n, ...), mapped."""
        try:
            self.commit()
        except OSError as error:
            raise _storage_error(error, self.folder) from None
        assert self.next == math.ceil(samples / ROWS), (self.next, samples)
        kept = np.delete(np.arange(samples), list(self.unreadable))
        assert len(kept) == self.rows, (len(kept), self.rows)
        shape = (self.rows, *(self.shape or ()))
        return kept, np.memmap(self.folder / VECTORS, "<f4", "c", shape=shape) if self.rows else np.empty(shape, "<f4")

    def close(self) -> None:
        for fd in (self._file, self._lock):
            with contextlib.suppress(OSError):
                os.close(fd)

    def remove(self) -> None:
        """Remove the folder, when the file is written."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _lock(folder: Path) -> int:
    import fcntl

    fd = open_file(folder, ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise RunInUseError(f"{folder} is in use by another process", "wait for it, or another out=") from None
    return fd


def _storage_error(error: OSError, out: Path) -> StorageError:
    return StorageError(
        f"cannot write {out}: {error.strerror or error}",
        "free some space or choose another out=; the same command continues with what is finished",
    )
