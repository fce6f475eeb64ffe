"""STL-10: memory-mapped, with its unlabeled split."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.public import urls
from sslcli.data.public.archives import find_folder, members, not_found_error, require_root
from sslcli.data.public.build import labeled_images
from sslcli.data.public.download import download_files, md5
from sslcli.errors import DataError


def stl10(name: str = "stl10", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """STL-10: 5,000 + 8,000 labeled and 100,000 unlabeled photographs, 96 x 96 (Coates, Ng & Lee, AISTATS 2011).

    Pretraining reads the unlabeled images. The files (2.8 GB) are memory-mapped and need not fit into memory.
    """
    root = require_root(path, "STL-10", download)
    folder = find_folder(root, urls.STL_FILES)
    if folder is None:
        if download:
            download_files([urls.STL_ARCHIVE], root)
        packed = find_folder(root, [urls.STL_ARCHIVE.name]) if os.path.isdir(root) else None
        if packed is not None:
            folder = _unpack(os.path.join(packed, urls.STL_ARCHIVE.name), packed)
    if folder is None:
        raise not_found_error("STL-10", [urls.STL_FILES[0], urls.STL_ARCHIVE.name], root, [urls.STL_ARCHIVE])

    def images(file: str) -> Tensor:
        full = os.path.join(folder, file)
        length = os.path.getsize(full)
        if length == 0 or length % (3 * 96 * 96):
            raise DataError(
                f"{escape(full)} has {length:,} bytes; expected a multiple of 27,648 (3 x 96 x 96)", "download it again"
            )
        # mode "c" (copy on write), as torch requires writable memory; the file is in column-major order
        return torch.from_numpy(np.memmap(full, np.uint8, "c", shape=(length // 27648, 3, 96, 96))).permute(0, 1, 3, 2)

    def labels(file: str, n: int) -> Tensor:
        y = torch.from_numpy(np.fromfile(os.path.join(folder, file), np.uint8).astype(np.int64)) - 1
        if len(y) != n or int(y.min()) < 0 or int(y.max()) > 9:
            raise DataError(
                f"{escape(os.path.join(folder, file))} does not hold {n:,} labels in 1..10", "download it again"
            )
        return y

    x, tx, u = images("train_X.bin"), images("test_X.bin"), images("unlabeled_X.bin")
    y, ty = labels("train_y.bin", len(x)), labels("test_y.bin", len(tx))
    print_ = fingerprint(len(x) + len(tx) + len(u), [x.numpy().tobytes(), y.numpy().tobytes(), str(len(u)).encode()])
    dataset = labeled_images(
        name, (x, y), (tx, ty), urls.STL_CLASSES, image_size, print_, [f"read from {escape(folder)}"]
    )
    dataset.unlabelled = ArraySource(u)
    return dataset


def _unpack(archive: str, to: str) -> str:
    """Unpack the five files of the archive; each is complete or absent. Returns their folder."""
    if md5(archive) != urls.STL_ARCHIVE.md5:
        raise DataError(f"{escape(archive)} is not the published file (its MD5 differs)", "download the file again")
    folder = os.path.join(to, "stl10_binary")
    os.makedirs(folder, exist_ok=True)
    for file, handle in members(archive, urls.STL_FILES):
        part = os.path.join(folder, f".{file}.part")
        with open(part, "wb") as out:
            while block := handle.read(1 << 22):
                out.write(block)
        os.replace(part, os.path.join(folder, file))
    return folder
