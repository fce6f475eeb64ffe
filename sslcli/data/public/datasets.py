"""The data sets that everyone compares on: digits, MNIST and relatives, CIFAR-10/100, STL-10, SVHN.

Each is read from the files their authors publish, below `dataset.path`, by the few lines each format needs; torchvision
is not imported. Nothing is downloaded unless `dataset.download=true`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.folders.scan import fingerprint
from sslcli.data.notify import shown
from sslcli.data.public import idx, urls
from sslcli.data.public.archives import absent, find, folders, md5_bytes, members, read_mat, require_root, unpickle
from sslcli.data.public.download import Remote, fetch, md5
from sslcli.data.split import split
from sslcli.data.stats import image_stats
from sslcli.errors import DataError, RequestError
from sslcli.runtime.cores import usable_cores
from sslcli.runtime.thread_pool import ordered


def digits(name: str = "digits", image_size: int | None = None, holdout: float = 0.2, split_seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: nothing to download.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998. Values 0..16 become uint8 0..255.
    """
    pixels, labels = _digits()
    x = torch.from_numpy(np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8))  # (1797, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64))
    kept, held = split(len(x), holdout, split_seed, y)
    return _dataset(
        name,
        (x[kept], y[kept]),
        (x[held], y[held]),
        [str(c) for c in range(10)],
        image_size,
        fingerprint(len(x), [x.numpy().tobytes(), y.numpy().tobytes(), held.numpy().tobytes()]),
        dark=True,
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 64) values 0..16 and (1797,) labels: the table inside scikit-learn, without the second and a half that
    importing `sklearn.datasets` takes; by its function where the table lies elsewhere."""
    from importlib.util import find_spec

    found = find_spec("sklearn")
    table = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if not table.is_file():
        from sklearn.datasets import load_digits

        raw = load_digits()
        return raw.data, raw.target
    rows = np.loadtxt(table, delimiter=",", dtype=np.uint8)
    return rows[:, :-1], rows[:, -1]


def _dataset(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Iterable[str],
    image_size: int | None,
    print_: str,
    notes: list[str] | None = None,
    dark: bool = False,
) -> Dataset:
    """`dark`: ink on black. The mean stays 0, so that the zeros which convolutions pad with are background and no grey
    frame is drawn round each picture (digits, SimSiam, 500 steps, 1 and 10 labels a class: .843 and .946, against
    .789 and .920 with the mean taken off)."""
    source = ArraySource(*train)
    mean, std = urls.STATS.get(print_) or image_stats(source)
    if dark:
        mean = (0.0,) * len(mean)
    side = check_size(image_size) or min(train[0].shape[-2:])
    return Dataset(
        name=name,
        modality="image",
        shape=(train[0].shape[1], side, side),
        train=source,
        test=ArraySource(*test) if len(test[0]) else None,
        classes=tuple(classes),
        mean=mean,
        std=std,
        fingerprint=print_,
        notes=notes or [],
    )


MAX_SIZE = 224  # side of a view of a user's images, where neither it nor another limit is asked for


def check_size(image_size: int | None, key: str = "image_size") -> int | None:
    """`dataset.image_size` as given, or a RequestError."""
    if image_size is not None and not 4 <= image_size <= 4096:
        raise RequestError(f"dataset.{key} is {image_size}, but must lie in 4..4096", f"dataset.{key}=224")
    return image_size


# ------------------------------------------------------------------------------------------------ MNIST and relatives


def mnist(name: str = "mnist", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """MNIST: 70,000 digits, 28 x 28 (LeCun, Cortes & Burges)."""
    return _idx_set("mnist", name, path, image_size, download)


def fashion_mnist(
    name: str = "fashion_mnist", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """Fashion-MNIST: 70,000 articles of clothing, 28 x 28 (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""
    return _idx_set("fashion_mnist", name, path, image_size, download)


def kmnist(name: str = "kmnist", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28 x 28 (Clanuwat et al., arXiv:1812.01718)."""
    return _idx_set("kmnist", name, path, image_size, download)


def _idx_set(which: str, name: str, path: str, image_size: int | None, download: bool) -> Dataset:
    title, published, _, classes = urls.IDX_SETS[which]
    root = require_root(path, title, download)
    chosen = _choose_idx(root, which)
    if chosen is None and download:
        fetch(published, os.path.join(root, title, "raw"))
        chosen = _choose_idx(root, which)
    if chosen is None:
        others = [f"; {shown(folder)} holds another set" for folder, *_ in _idx_folders(root)]
        raise absent(title, [f"{urls.IDX_STEMS[0]}[.gz]", "its 3 companions"], root, published, "".join(others[:2]))
    folder, files = chosen
    arrays = [idx.read(os.path.join(folder, f)) for f in files]
    pairs = []
    for x, y, f in ((arrays[0], arrays[1], files[0]), (arrays[2], arrays[3], files[2])):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise DataError(
                f"{shown(os.path.join(folder, f))}: images {x.shape} and labels {y.shape} do not fit together"
            )
        pairs.append((torch.from_numpy(x)[:, None], torch.from_numpy(y.astype(np.int64))))
    top = max(int(y.max()) for _, y in pairs)
    if top >= len(classes):
        classes = tuple(str(c) for c in range(top + 1))
    print_ = fingerprint(sum(len(x) for x, _ in pairs), (t.numpy().tobytes() for pair in pairs for t in pair))
    notes = [f"read from {shown(folder)}"]
    return _dataset(name, pairs[0], pairs[1], classes, image_size, print_, notes, dark=True)


def _idx_folders(root: str) -> Iterator[tuple[str, list[str], str]]:
    """(folder, its four files, its first ten training labels) for each folder that holds a set of this layout."""
    for folder, names in folders(root):
        there = set(names)
        files = [
            next((f for f in (stem, stem + ".gz", stem.replace("-idx", ".idx")) if f in there), "")
            for stem in urls.IDX_STEMS
        ]
        if all(files):
            yield folder, files, "".join(map(str, idx.read(os.path.join(folder, files[1]))[:10].tolist()))


def _choose_idx(root: str, which: str) -> tuple[str, list[str]] | None:
    """MNIST, Fashion-MNIST and KMNIST share their file names: told apart by the first labels, then by folder name."""
    known = {first: key for key, (_, _, first, _) in urls.IDX_SETS.items() if first}
    unknown = []
    for folder, files, first in _idx_folders(root):
        if known.get(first) == which:
            return folder, files
        if first not in known:
            unknown.append((folder, files))
    word = urls.IDX_SETS[which][0].lower()
    for folder, files in unknown:
        parts = os.path.abspath(folder).lower().replace("-", "").replace("_", "").split(os.sep)
        if word in parts:
            return folder, files
    return unknown[0] if len(unknown) == 1 else None


# ------------------------------------------------------------------------------------------------ CIFAR

_BATCH_BYTES = 1 << 28  # more of one file is never read


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
    archive: Remote,
    sums: dict[str, str],
    label_key: bytes,
    class_key: bytes,
) -> Dataset:
    root = require_root(path, title, download)
    found = _cifar_files(root, archive, sums)
    if found is None and download:
        fetch([archive], root)
        found = _cifar_files(root, archive, sums)
    if found is None:
        raise absent(title, [next(iter(sums)), archive.name], root, [archive])
    where, read = found

    def known(file: str) -> Any:
        blob = read(file)
        got = md5_bytes(blob)
        if got != sums[file]:
            raise DataError(
                f"{shown(where)}: {file} is not the published file (MD5 {got}, expected {sums[file]})",
                f"it is a pickle, which is read only when it is known; get {archive.name} again",
            )
        return unpickle(blob)

    def stack(files: list[str]) -> tuple[Tensor, Tensor]:
        pixels = [parts[f][b"data"] for f in files]
        x = np.empty((sum(map(len, pixels)), 3, 32, 32), np.uint8)
        rows = np.split(x.reshape(len(x), -1), np.cumsum([len(p) for p in pixels])[:-1])
        list(ordered(lambda pair: np.copyto(*pair), zip(rows, pixels, strict=True), threads))
        return torch.from_numpy(x), torch.tensor([v for f in files for v in parts[f][label_key]], dtype=torch.int64)

    batches = [f for f in sums if "meta" not in f]
    threads = usable_cores()  # more would only hold more files at once
    parts = dict(zip(sums, ordered(known, sums, threads, threads), strict=True))
    train, test = stack(batches[:-1]), stack(batches[-1:])
    classes = [c.decode() for c in parts[list(sums)[-1]][class_key]]
    print_ = fingerprint(len(train[0]) + len(test[0]), (s.encode() for s in sums.values()))
    return _dataset(name, train, test, classes, image_size, print_, [f"read from {shown(where)}"])


def _cifar_files(root: str, archive: Remote, sums: dict[str, str]) -> tuple[str, Callable[[str], bytes]] | None:
    """Where the batch files are, and what reads one of them: from a folder, or straight from the archive."""
    folder = find(root, sums)
    if folder is not None:
        return folder, lambda file: _whole(os.path.join(folder, file))
    folder = find(root, [archive.name])
    if folder is None:
        return None
    where = os.path.join(folder, archive.name)
    blobs = {file: part.read(_BATCH_BYTES) for file, part in members(where, sums)}
    if set(blobs) != set(sums):
        raise DataError(f"{shown(where)} lacks {', '.join(sorted(set(sums) - set(blobs)))}", "get the file again")
    return where, blobs.pop


def _whole(path: str) -> bytes:
    """A file's bytes, asked for by its size: memory of the largest size that is allowed is never used twice."""
    with open(path, "rb") as handle:
        return handle.read(min(os.fstat(handle.fileno()).st_size, _BATCH_BYTES))


# ------------------------------------------------------------------------------------------------ STL-10


def stl10(name: str = "stl10", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """STL-10: 5,000 + 8,000 labelled and 100,000 unlabelled photographs, 96 x 96 (Coates, Ng & Lee, AISTATS 2011).

    Pretraining reads the unlabelled ones. The files are mapped, not read: 2.8 GB need not fit into memory.
    """
    root = require_root(path, "STL-10", download)
    folder = find(root, urls.STL_FILES)
    if folder is None:
        if download:
            fetch([urls.STL_ARCHIVE], root)
        packed = find(root, [urls.STL_ARCHIVE.name]) if os.path.isdir(root) else None
        if packed is not None:
            folder = _unpack_stl(os.path.join(packed, urls.STL_ARCHIVE.name), packed)
    if folder is None:
        raise absent("STL-10", [urls.STL_FILES[0], urls.STL_ARCHIVE.name], root, [urls.STL_ARCHIVE])

    def images(file: str) -> Tensor:
        full = os.path.join(folder, file)
        length = os.path.getsize(full)
        if length == 0 or length % (3 * 96 * 96):
            raise DataError(f"{shown(full)} has {length:,} bytes, which is no number of 96 x 96 images", "get it again")
        # mode "c": private pages, so that torch may share them; the file stores columns first
        return torch.from_numpy(np.memmap(full, np.uint8, "c", shape=(length // 27648, 3, 96, 96))).permute(0, 1, 3, 2)

    def labels(file: str, n: int) -> Tensor:
        y = torch.from_numpy(np.fromfile(os.path.join(folder, file), np.uint8).astype(np.int64)) - 1
        if len(y) != n or int(y.min()) < 0 or int(y.max()) > 9:
            raise DataError(f"{shown(os.path.join(folder, file))} does not hold {n:,} labels 1..10", "get it again")
        return y

    x, tx, u = images("train_X.bin"), images("test_X.bin"), images("unlabeled_X.bin")
    y, ty = labels("train_y.bin", len(x)), labels("test_y.bin", len(tx))
    print_ = fingerprint(len(x) + len(tx) + len(u), [x.numpy().tobytes(), y.numpy().tobytes(), str(len(u)).encode()])
    dataset = _dataset(name, (x, y), (tx, ty), urls.STL_CLASSES, image_size, print_, [f"read from {shown(folder)}"])
    dataset.unlabelled = ArraySource(u)
    return dataset


def _unpack_stl(archive: str, to: str) -> str:
    """The five files of the archive, by name, whole or absent."""
    if md5(archive) != urls.STL_ARCHIVE.md5:
        raise DataError(f"{shown(archive)} is not the published file (its MD5 differs)", "get the file again")
    folder = os.path.join(to, "stl10_binary")
    os.makedirs(folder, exist_ok=True)
    for file, handle in members(archive, urls.STL_FILES):
        part = os.path.join(folder, f".{file}.part")
        with open(part, "wb") as out:
            while block := handle.read(1 << 22):
                out.write(block)
        os.replace(part, os.path.join(folder, file))
    return folder


# ------------------------------------------------------------------------------------------------ SVHN


def svhn(name: str = "svhn", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """Street View House Numbers: 73,257 + 26,032 digits, 32 x 32 (Netzer et al., NIPS workshop 2011)."""
    root = require_root(path, "SVHN", download)
    folder = find(root, [r.name for r in urls.SVHN])
    if folder is None and download:
        fetch(urls.SVHN, root)
        folder = root
    if folder is None:
        raise absent("SVHN", [r.name for r in urls.SVHN], root, urls.SVHN)
    pairs = [read_mat(os.path.join(folder, r.name)) for r in urls.SVHN]
    print_ = fingerprint(sum(len(x) for x, _ in pairs), (t.numpy().tobytes() for pair in pairs for t in pair))
    return _dataset(
        name, pairs[0], pairs[1], [str(c) for c in range(10)], image_size, print_, [f"read from {shown(folder)}"]
    )
