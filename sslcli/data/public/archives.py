"""Locate published files, and read tar archives and pickles without executing anything."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Container, Iterable, Iterator
from typing import IO, Any, cast

import numpy as np

from sslcli.console import escape, human_bytes
from sslcli.data.folders.paths import is_hidden, require_folder
from sslcli.data.public.download import RemoteFile
from sslcli.data.sources.tar_files import headers as tar_headers
from sslcli.errors import DataError, RequestError

_MAX_DEPTH, _MAX_ENTRIES = 5, 50_000


def folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """Folders below `root`, nearest first, with their file names. The search is limited, so that a wrong path does not scan a
    disk."""
    level, seen, n_entries = [root], {os.path.realpath(root)}, 0
    for _ in range(_MAX_DEPTH):
        below = []
        for folder in level:
            try:
                with os.scandir(folder) as iterator:
                    entries = sorted(iterator, key=lambda e: os.fsencode(e.name))
            except OSError:
                continue  # no permission
            n_entries += len(entries)
            yield folder, [e.name for e in entries if e.is_file()]
            for entry in entries:
                if not is_hidden(entry.name) and entry.is_dir() and (real := os.path.realpath(entry.path)) not in seen:
                    seen.add(real)
                    below.append(entry.path)
            if n_entries > _MAX_ENTRIES:
                return
        level = below


def find_folder(root: str, names: Iterable[str]) -> str | None:
    """The nearest folder below `root` that holds all files `names`, or None."""
    names = set(names)
    return next((folder for folder, files in folders(root) if names.issubset(files)), None)


def require_root(path: str, title: str, download: bool) -> str:
    """The folder in which a data set is searched, created where it is to be downloaded."""
    if download:
        os.makedirs(os.path.expanduser(path), exist_ok=True)
    elif not os.path.exists(os.path.expanduser(path)):
        return os.path.expanduser(path)  # `not_found_error` says more than "does not exist"
    return require_folder(path, f"the folder that holds {title}")


def not_found_error(
    title: str, names: Iterable[str], root: str, remotes: Iterable[RemoteFile], more: str = ""
) -> RequestError:
    remotes = list(remotes)
    return RequestError(
        f"{title} not found: expected {', '.join(names)} in {escape(os.path.abspath(root))} or a folder below it{more}",
        f"dataset.path=FOLDER (or SSLCLI_DATA=FOLDER) if it is elsewhere; dataset.download=true downloads "
        f"{human_bytes(sum(r.size for r in remotes))} from {remotes[0].urls[0].split('/')[2]}",
    )


MAX_UNPACKED = 3 << 30  # bytes of an unpacked archive; STL-10 has 2.8 GB


class _LimitedGzip(io.RawIOBase):
    """The unpacked bytes of a .gz file, up to a limit."""

    def __init__(self, path: str, most: int):
        self.file = gzip.open(path)  # noqa: SIM115 (closed in `close`)
        self.path, self.left, self.most = path, most, most

    def close(self) -> None:
        self.file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        block = self.file.read(min(n, 1 << 20) if n >= 0 else 1 << 20)
        self.left -= len(block)
        if self.left < 0:
            raise DataError(
                f"{escape(self.path)} unpacks to more than {human_bytes(self.most)}", "download the file again"
            )
        return block


def members(path: str, names: Container[str], most: int = MAX_UNPACKED) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of a .tar.gz whose base name is in `names`, in order. Read each before taking the next.

    No path in the archive is written or followed, links are ignored, and at most `most` bytes are unpacked. Raises DataError
    for a corrupt archive.
    """
    try:
        with (
            _LimitedGzip(path, most) as packed,
            tarfile.open(fileobj=packed, mode="r|", tarinfo=tar_headers.Header) as tar,
        ):
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isreg() and name in names:
                    handle = tar.extractfile(member)
                    assert handle is not None
                    yield name, handle
    except tar_headers.READ_ERRORS as error:
        raise DataError(f"{escape(path)} is corrupt: {error}", "download the file again") from error


def md5_bytes(blob: bytes) -> str:
    return hashlib.md5(blob, usedforsecurity=False).hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            return np.ndarray.__reduce__(np.empty(0))[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


class _BufferReader:
    """A file in memory for an unpickler, which reads parts of it without the copies that `io.BytesIO` makes."""

    def __init__(self, blob: bytes):
        self.blob, self.at = blob, 0

    def read(self, n: int) -> memoryview:
        start, self.at = self.at, min(self.at + n, len(self.blob))
        return memoryview(self.blob)[start : self.at]

    def readinto(self, place: memoryview) -> int:
        part = self.read(len(place))
        place[: len(part)] = part
        return len(part)

    def peek(self, n: int) -> memoryview:
        return memoryview(self.blob)[self.at : self.at + n]

    def readline(self) -> memoryview:
        end = self.blob.find(b"\n", self.at) + 1
        return self.read((end or len(self.blob)) - self.at)


def unpickle(blob: bytes) -> Any:
    """Load numpy arrays and plain containers. Raises UnpicklingError for anything else."""
    return _ArraysOnly(cast(IO[bytes], _BufferReader(blob)), encoding="bytes").load()
