"""CIFAR-10 and CIFAR-100, read from the batch files or straight from the published archive."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.public import urls
from sslcli.data.public.archives import find_folder, md5_bytes, members, not_found_error, require_root, unpickle
from sslcli.data.public.build import labeled_images
from sslcli.data.public.download import RemoteFile, download_files
from sslcli.errors import DataError
from sslcli.runtime.resources import usable_cores
from sslcli.runtime.thread_pool import ordered_map

_BATCH_BYTES = 1 << 28  # maximum size of a batch file


def cifar10(
    name: str = "cifar10", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """CIFAR-10: 60,000 photographs of 10 classes, 32 x 32.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return _cifar(
        name,
        "CIFAR-10",
        path,
        image_size,
        download,
        urls.CIFAR10_ARCHIVE,
        urls.CIFAR10,
        b"labels",
        b"label_names",
    )


def cifar100(
    name: str = "cifar100", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """CIFAR-100: 60,000 photographs of 100 classes, 32 x 32 (Krizhevsky 2009); the fine labels."""
    return _cifar(
        name,
        "CIFAR-100",
        path,
        image_size,
        download,
        urls.CIFAR100_ARCHIVE,
        urls.CIFAR100,
        b"fine_labels",
        b"fine_label_names",
    )


def _cifar(
    name: str,
    title: str,
    path: str,
    image_size: int | None,
    download: bool,
    archive: RemoteFile,
    sums: dict[str, str],
    label_key: bytes,
    class_key: bytes,
) -> Dataset:
    root = require_root(path, title, download)
    source = _find_batches(root, archive, sums)
    if source is None and download:
        download_files([archive], root)
        source = _find_batches(root, archive, sums)
    if source is None:
        raise not_found_error(title, [next(iter(sums)), archive.name], root, [archive])
    where, read = source

    def load(file: str) -> Any:
        blob = read(file)
        got = md5_bytes(blob)
        if got != sums[file]:
            raise DataError(
                f"{escape(where)}: {file} is not the published file (MD5 {got}, expected {sums[file]})",
                f"pickles are read only if their checksum is known; download {archive.name} again",
            )
        return unpickle(blob)

    def stack(files: list[str]) -> tuple[Tensor, Tensor]:
        pixels = [parts[f][b"data"] for f in files]
        x = np.empty((sum(map(len, pixels)), 3, 32, 32), np.uint8)
        rows = np.split(x.reshape(len(x), -1), np.cumsum([len(p) for p in pixels])[:-1])
        list(ordered_map(lambda pair: np.copyto(*pair), zip(rows, pixels, strict=True), threads))
        return torch.from_numpy(x), torch.tensor([v for f in files for v in parts[f][label_key]], dtype=torch.int64)

    batches = [f for f in sums if "meta" not in f]
    threads = usable_cores()  # more threads would only hold more files in memory
    parts = dict(zip(sums, ordered_map(load, sums, threads, threads), strict=True))
    train, test = stack(batches[:-1]), stack(batches[-1:])
    classes = [c.decode() for c in parts[list(sums)[-1]][class_key]]
    print_ = fingerprint(len(train[0]) + len(test[0]), (s.encode() for s in sums.values()))
    return labeled_images(name, train, test, classes, image_size, print_, [f"read from {escape(where)}"])


def _find_batches(root: str, archive: RemoteFile, sums: dict[str, str]) -> tuple[str, Callable[[str], bytes]] | None:
    """The location of the batch files, and a function that reads one of them: from a folder, or directly from the archive."""
    folder = find_folder(root, sums)
    if folder is not None:
        return folder, lambda file: _read_whole(os.path.join(folder, file))
    folder = find_folder(root, [archive.name])
    if folder is None:
        return None
    where = os.path.join(folder, archive.name)
    blobs = {file: part.read(_BATCH_BYTES) for file, part in members(where, sums)}
    if set(blobs) != set(sums):
        raise DataError(
            f"{escape(where)} lacks the files {', '.join(sorted(set(sums) - set(blobs)))}", "download the file again"
        )
    return where, blobs.pop


def _read_whole(path: str) -> bytes:
    """The bytes of a file, up to `_BATCH_BYTES`; reading by the actual size avoids allocating the maximum."""
    with open(path, "rb") as handle:
        return handle.read(min(os.fstat(handle.fileno()).st_size, _BATCH_BYTES))
