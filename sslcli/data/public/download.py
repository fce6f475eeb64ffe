"""Download published files: announced before it starts, verified by checksum, complete or absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

from sslcli.console import human_bytes, plural
from sslcli.data import notify
from sslcli.errors import DataError, MachineError, StorageError


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, with its known size and MD5 (as published by torchvision)."""

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str


def md5(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download_files(remotes: Iterable[RemoteFile], folder: str) -> None:
    """Download each file to `folder` unless it exists, after logging the size, the servers and the folder.

    Raises MachineError where no server can be reached, DataError where a checksum does not match, StorageError where a file
    cannot be written.
    """
    missing = [r for r in remotes if not os.path.exists(os.path.join(folder, r.name))]
    if not missing:
        return
    total = sum(r.size for r in missing)
    hosts = sorted({r.urls[0].rsplit("/", 1)[0] + "/" for r in missing})
    notify.log(
        f"downloading {plural(len(missing), 'file')} ({human_bytes(total)}) from {', '.join(hosts)} "
        f"to {os.path.abspath(folder)}"
    )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create the folder {folder}: {error.strerror}", "dataset.path=FOLDER") from error
    done = 0
    for remote in missing:
        _download_file(remote, folder, done, total)
        done += remote.size


def _download_file(remote: RemoteFile, folder: str, before: int, total: int) -> None:
    problems = []
    for url in remote.urls:
        handle, part = tempfile.mkstemp(dir=folder, prefix=f".{remote.name}.")
        try:
            digest, got = hashlib.md5(usedforsecurity=False), 0
            with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=30) as response:
                while block := response.read(1 << 20):
                    got += len(block)
                    if got > remote.size:
                        break  # longer than the published file
                    digest.update(block)
                    try:
                        out.write(block)
                    except OSError as error:
                        raise StorageError(f"cannot write {part}: {error.strerror}", "dataset.path=FOLDER") from error
                    notify.show_progress(f"downloading {remote.name}", before + got, total)
            if got != remote.size or digest.hexdigest() != remote.md5:
                raise DataError(
                    f"{url} is not the published file ({got:,} bytes of {remote.size:,}, MD5 {digest.hexdigest()})",
                    f"download {remote.name} (MD5 {remote.md5}) by other means and put it into {folder}",
                )
            os.chmod(part, 0o644)
            os.replace(part, os.path.join(folder, remote.name))
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            problems.append(f"{url}: {getattr(error, 'reason', error)}")
        finally:
            if os.path.exists(part):
                os.unlink(part)
    raise MachineError(
        f"{remote.name} cannot be downloaded: {'; '.join(problems)}",
        f"copy {remote.name} into {os.path.abspath(folder)} by other means, and omit dataset.download",
    )
