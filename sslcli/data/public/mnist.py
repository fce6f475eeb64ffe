"""MNIST, Fashion-MNIST and Kuzushiji-MNIST, which share one file layout."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.public import idx, urls
from sslcli.data.public.archives import folders, not_found_error, require_root
from sslcli.data.public.build import labeled_images
from sslcli.data.public.download import download_files
from sslcli.errors import DataError


def mnist(name: str = "mnist", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """MNIST: 70,000 digits, 28 x 28 (LeCun, Cortes & Burges)."""
    return _idx_dataset("mnist", name, path, image_size, download)


def fashion_mnist(
    name: str = "fashion_mnist", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """Fashion-MNIST: 70,000 articles of clothing, 28 x 28 (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""
    return _idx_dataset("fashion_mnist", name, path, image_size, download)


def kmnist(name: str = "kmnist", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28 x 28 (Clanuwat et al., arXiv:1812.01718)."""
    return _idx_dataset("kmnist", name, path, image_size, download)


def _idx_dataset(which: str, name: str, path: str, image_size: int | None, download: bool) -> Dataset:
    title, published, _, classes = urls.IDX_SETS[which]
    root = require_root(path, title, download)
    location = _find_idx(root, which)
    if location is None and download:
        download_files(published, os.path.join(root, title, "raw"))
        location = _find_idx(root, which)
    if location is None:
        others = [f"; {escape(folder)} holds another data set" for folder, *_ in _idx_folders(root)]
        raise not_found_error(
            title, [f"{urls.IDX_STEMS[0]}[.gz]", "and the 3 other files"], root, published, "".join(others[:2])
        )
    folder, files = location
    arrays = [idx.read(os.path.join(folder, f)) for f in files]
    pairs = []
    for x, y, f in ((arrays[0], arrays[1], files[0]), (arrays[2], arrays[3], files[2])):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise DataError(f"{escape(os.path.join(folder, f))}: images {x.shape} and labels {y.shape} do not match")
        pairs.append((torch.from_numpy(x)[:, None], torch.from_numpy(y.astype(np.int64))))
    top = max(int(y.max()) for _, y in pairs)
    if top >= len(classes):
        classes = tuple(str(c) for c in range(top + 1))
    print_ = fingerprint(sum(len(x) for x, _ in pairs), (t.numpy().tobytes() for pair in pairs for t in pair))
    notes = [f"read from {escape(folder)}"]
    return labeled_images(name, pairs[0], pairs[1], classes, image_size, print_, notes, dark=True)


def _idx_folders(root: str) -> Iterator[tuple[str, list[str], str]]:
    """(folder, its four files, its first ten training labels) for each folder with the four files of such a data set."""
    for folder, names in folders(root):
        available = set(names)
        files = [
            next((f for f in (stem, stem + ".gz", stem.replace("-idx", ".idx")) if f in available), "")
            for stem in urls.IDX_STEMS
        ]
        if all(files):
            yield folder, files, "".join(map(str, idx.read(os.path.join(folder, files[1]))[:10].tolist()))


def _find_idx(root: str, which: str) -> tuple[str, list[str]] | None:
    """The folder and files of one data set. MNIST, Fashion-MNIST and KMNIST share their file names; they are distinguished by the
    first labels, then by the name of the folder."""
    by_first_labels = {first: key for key, (_, _, first, _) in urls.IDX_SETS.items() if first}
    unknown = []
    for folder, files, first in _idx_folders(root):
        if by_first_labels.get(first) == which:
            return folder, files
        if first not in by_first_labels:
            unknown.append((folder, files))
    word = urls.IDX_SETS[which][0].lower()
    for folder, files in unknown:
        parts = os.path.abspath(folder).lower().replace("-", "").replace("_", "").split(os.sep)
        if word in parts:
            return folder, files
    return unknown[0] if len(unknown) == 1 else None
