"""The data sets that everyone compares on: digits, MNIST and relatives, CIFAR-10/100, STL-10, SVHN.

Each is read from the files their authors publish, below `dataset.path`, by the few lines each format needs; torchvision
is not imported. Nothing is downloaded unless `dataset.download=true`.
"""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data import idx
from sslcli.data.download import Remote, fetch, md5
from sslcli.data.files import fingerprint, is_hidden, require_folder
from sslcli.data.source import ArraySource, Dataset
from sslcli.data.split import split
from sslcli.data.stats import image_stats
from sslcli.data.talk import shown, size
from sslcli.errors import DataError, RequestError


def digits(name: str = "digits", image_size: int | None = None, holdout: float = 0.2, split_seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: nothing to download.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998. Values 0..16 become uint8 0..255.
    """
    from sklearn.datasets import load_digits  # 1 s to import

    raw = load_digits()
    x = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8))[:, None]  # (1797, 1, 8, 8)
    y = torch.from_numpy(raw.target.astype(np.int64))
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
    mean, std = image_stats(source)
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


def check_size(image_size: int | None) -> int | None:
    """`dataset.image_size` as given, or a RequestError."""
    if image_size is not None and not 4 <= image_size <= 4096:
        raise RequestError(f"dataset.image_size is {image_size}, but must lie in 4..4096", "dataset.image_size=224")
    return image_size


# ------------------------------------------------------------------------------------------------ where files are

_DEPTH, _ENTRIES = 5, 50_000


def _folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """Folders below `root`, nearest first, with their file names; bounded: a wrong path does not walk a disk."""
    level, seen, looked = [root], {os.path.realpath(root)}, 0
    for _ in range(_DEPTH):
        below = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    here = sorted(entries, key=lambda e: os.fsencode(e.name))
            except OSError:
                continue  # a folder that may not be read holds nothing for us
            looked += len(here)
            yield folder, [e.name for e in here if e.is_file()]
            for entry in here:
                if not is_hidden(entry.name) and entry.is_dir() and (real := os.path.realpath(entry.path)) not in seen:
                    seen.add(real)
                    below.append(entry.path)
            if looked > _ENTRIES:
                return
        level = below


def _find(root: str, names: Iterable[str]) -> str | None:
    """The nearest folder below `root` that holds all of `names`."""
    wanted = set(names)
    return next((folder for folder, files in _folders(root) if wanted.issubset(files)), None)


def _require_root(path: str, title: str, download: bool) -> str:
    if download:
        os.makedirs(os.path.expanduser(path), exist_ok=True)
    elif not os.path.exists(os.path.expanduser(path)):
        return os.path.expanduser(path)  # `_absent` says more than "does not exist"
    return require_folder(path, f"the folder that holds {title}")


def _absent(title: str, names: Iterable[str], root: str, remotes: Iterable[Remote], more: str = "") -> RequestError:
    remotes = list(remotes)
    return RequestError(
        f"{title} is not there: looked for {', '.join(names)} in {shown(os.path.abspath(root))} "
        f"and the folders below it{more}",
        f"dataset.path=FOLDER (or SSLCLI_DATA=FOLDER) where it lies, or dataset.download=true to download "
        f"{size(sum(r.size for r in remotes))} from {remotes[0].urls[0].split('/')[2]} to it",
    )


# ------------------------------------------------------------------------------------------------ MNIST and relatives

_IDX_STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"


def _gzipped(base: str, sums: Iterable[tuple[int, str]]) -> list[Remote]:
    return [
        Remote(f"{stem}.gz", (f"{base}{stem}.gz",), length, checksum)
        for stem, (length, checksum) in zip(_IDX_STEMS, sums, strict=True)
    ]


_IDX_SETS: dict[str, tuple[str, list[Remote], str, tuple[str, ...]]] = {  # folder, files, first labels, classes
    "mnist": (
        "MNIST",
        _gzipped(
            _MNIST,
            [
                (9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                (28881, "d53e105ee54ea40749a09fcbcd1e9432"),
                (1648877, "9fb629c4189551a2d022fa330f9573f3"),
                (4542, "ec29112dd5afa0611ce80d1b7f02629c"),
            ],
        ),
        "5041921314",
        tuple("0123456789"),
    ),
    "fashion_mnist": (
        "FashionMNIST",
        _gzipped(
            _FASHION,
            [
                (26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                (29515, "25c81989df183df01b3e8a0aad5dffbe"),
                (4422102, "bef4ecab320f06d8554ea6380940ec79"),
                (5148, "bb300cfdad3c16e7a12a480ee83cd310"),
            ],
        ),
        "9003027255",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": (
        "KMNIST",
        _gzipped(
            _KMNIST,
            [
                (18165135, "bdb82020997e1d708af4cf47b453dcf7"),
                (29497, "e144d726b3acfaa3e44228e80efcd344"),
                (3041136, "5c965bf0a639b31b8f53240b1b52f4d7"),
                (5120, "7320c461ea6c1c855c0b718fb2a4b134"),
            ],
        ),
        "",  # not known for certain: found by the folder's name, or by being the only one
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}


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
    title, remotes, _, classes = _IDX_SETS[which]
    root = _require_root(path, title, download)
    chosen = _choose_idx(root, which)
    if chosen is None and download:
        fetch(remotes, os.path.join(root, title, "raw"))
        chosen = _choose_idx(root, which)
    if chosen is None:
        others = [f"; {shown(folder)} holds another set" for folder, *_ in _idx_folders(root)]
        raise _absent(title, [f"{_IDX_STEMS[0]}[.gz]", "its 3 companions"], root, remotes, "".join(others[:2]))
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
    for folder, names in _folders(root):
        there = set(names)
        files = [
            next((f for f in (stem, stem + ".gz", stem.replace("-idx", ".idx")) if f in there), "")
            for stem in _IDX_STEMS
        ]
        if all(files):
            yield folder, files, "".join(map(str, idx.read(os.path.join(folder, files[1]))[:10].tolist()))


def _choose_idx(root: str, which: str) -> tuple[str, list[str]] | None:
    """MNIST, Fashion-MNIST and KMNIST share their file names: told apart by the first labels, then by folder name."""
    known = {first: key for key, (_, _, first, _) in _IDX_SETS.items() if first}
    unknown = []
    for folder, files, first in _idx_folders(root):
        if known.get(first) == which:
            return folder, files
        if first not in known:
            unknown.append((folder, files))
    word = _IDX_SETS[which][0].lower()
    for folder, files in unknown:
        parts = os.path.abspath(folder).lower().replace("-", "").replace("_", "").split(os.sep)
        if word in parts:
            return folder, files
    return unknown[0] if len(unknown) == 1 else None


# ------------------------------------------------------------------------------------------------ CIFAR

_CIFAR10 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
_CIFAR100 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def cifar10(
    name: str = "cifar10", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """CIFAR-10: 60,000 photographs of 10 classes, 32 x 32.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    archive = Remote(
        "cifar-10-python.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        170498071,
        "c58f30108f718f92721af3b95e74349a",
    )
    return _cifar(name, "CIFAR-10", path, image_size, download, archive, _CIFAR10, b"labels", b"label_names")


def cifar100(
    name: str = "cifar100", path: str = ".data", image_size: int | None = None, download: bool = False
) -> Dataset:
    """CIFAR-100: 60,000 photographs of 100 classes, 32 x 32 (Krizhevsky 2009); the fine labels."""
    archive = Remote(
        "cifar-100-python.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
        169001437,
        "eb9058c3a382ffc7106e4002c42a8d85",
    )
    return _cifar(
        name, "CIFAR-100", path, image_size, download, archive, _CIFAR100, b"fine_labels", b"fine_label_names"
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
    root = _require_root(path, title, download)
    where, blobs = _cifar_files(root, archive, sums)
    if not blobs and download:
        fetch([archive], root)
        where, blobs = _cifar_files(root, archive, sums)
    if not blobs:
        raise _absent(title, [next(iter(sums)), archive.name], root, [archive])
    parts: dict[str, Any] = {}
    for file in sums:
        blob = blobs.pop(file)
        got = _md5_bytes(blob)
        if got != sums[file]:
            raise DataError(
                f"{shown(where)}: {file} is not the published file (MD5 {got}, expected {sums[file]})",
                f"it is a pickle, which is read only when it is known; get {archive.name} again",
            )
        parts[file] = _unpickle(blob)

    def stack(files: list[str]) -> tuple[Tensor, Tensor]:
        x = np.concatenate([parts[f][b"data"] for f in files]).reshape(-1, 3, 32, 32)
        return torch.from_numpy(x), torch.tensor([v for f in files for v in parts[f][label_key]], dtype=torch.int64)

    batches = [f for f in sums if "meta" not in f]
    train, test = stack(batches[:-1]), stack(batches[-1:])
    classes = [c.decode() for c in parts[list(sums)[-1]][class_key]]
    print_ = fingerprint(len(train[0]) + len(test[0]), (s.encode() for s in sums.values()))
    return _dataset(name, train, test, classes, image_size, print_, [f"read from {shown(where)}"])


def _cifar_files(root: str, archive: Remote, sums: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """The batch files, from a folder or straight from the archive."""
    blobs: dict[str, bytes] = {}
    folder = _find(root, sums)
    if folder is not None:
        for file in sums:
            with open(os.path.join(folder, file), "rb") as handle:
                blobs[file] = handle.read(1 << 28)
        return folder, blobs
    folder = _find(root, [archive.name])
    if folder is None:
        return "", {}
    where = os.path.join(folder, archive.name)
    try:
        with tarfile.open(where) as tar:
            for member in tar:  # read by name into memory: no path of the archive is ever written
                file = os.path.basename(member.name)
                if member.isfile() and file in sums and member.size < 1 << 28:
                    handle_ = tar.extractfile(member)
                    assert handle_ is not None
                    blobs[file] = handle_.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{shown(where)} is broken: {error}", "get the file again") from error
    if set(blobs) != set(sums):
        raise DataError(f"{shown(where)} lacks {', '.join(sorted(set(sums) - set(blobs)))}", "get the file again")
    return where, blobs


def _md5_bytes(blob: bytes) -> str:
    import hashlib

    return hashlib.md5(blob, usedforsecurity=False).hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            return np.ndarray.__reduce__(np.empty(0))[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _unpickle(blob: bytes) -> Any:
    import io

    return _ArraysOnly(io.BytesIO(blob), encoding="bytes").load()


# ------------------------------------------------------------------------------------------------ STL-10

_STL_ARCHIVE = Remote(
    "stl10_binary.tar.gz",
    ("https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
    2640397119,
    "91f7769df0f17e558f3565bffb0c7dfb",
)
_STL_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin")
_STL_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def stl10(name: str = "stl10", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """STL-10: 5,000 + 8,000 labelled and 100,000 unlabelled photographs, 96 x 96 (Coates, Ng & Lee, AISTATS 2011).

    Pretraining reads the unlabelled ones. The files are mapped, not read: 2.8 GB need not fit into memory.
    """
    root = _require_root(path, "STL-10", download)
    folder = _find(root, _STL_FILES)
    if folder is None:
        if download:
            fetch([_STL_ARCHIVE], root)
        packed = _find(root, [_STL_ARCHIVE.name]) if os.path.isdir(root) else None
        if packed is not None:
            folder = _unpack_stl(os.path.join(packed, _STL_ARCHIVE.name), packed)
    if folder is None:
        raise _absent("STL-10", [_STL_FILES[0], _STL_ARCHIVE.name], root, [_STL_ARCHIVE])

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
    dataset = _dataset(name, (x, y), (tx, ty), _STL_CLASSES, image_size, print_, [f"read from {shown(folder)}"])
    dataset.unlabelled = ArraySource(u)
    return dataset


def _unpack_stl(archive: str, to: str) -> str:
    """The five files of the archive, by name, whole or absent."""
    if md5(archive) != _STL_ARCHIVE.md5:
        raise DataError(f"{shown(archive)} is not the published file (its MD5 differs)", "get the file again")
    folder = os.path.join(to, "stl10_binary")
    os.makedirs(folder, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            file = os.path.basename(member.name)
            if member.isfile() and file in _STL_FILES:
                handle = tar.extractfile(member)
                assert handle is not None
                part = os.path.join(folder, f".{file}.part")
                with open(part, "wb") as out:
                    while block := handle.read(1 << 22):
                        out.write(block)
                os.replace(part, os.path.join(folder, file))
    return folder


# ------------------------------------------------------------------------------------------------ SVHN

_SVHN = [
    Remote(
        "train_32x32.mat",
        ("http://ufldl.stanford.edu/housenumbers/train_32x32.mat",),
        182040794,
        "e26dedcc434d2e4c54c9b2d4a06d8373",
    ),
    Remote(
        "test_32x32.mat",
        ("http://ufldl.stanford.edu/housenumbers/test_32x32.mat",),
        64275384,
        "eb5a983be6a315427106f1b164d9cef3",
    ),
]


def svhn(name: str = "svhn", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """Street View House Numbers: 73,257 + 26,032 digits, 32 x 32 (Netzer et al., NIPS workshop 2011)."""
    root = _require_root(path, "SVHN", download)
    folder = _find(root, [r.name for r in _SVHN])
    if folder is None and download:
        fetch(_SVHN, root)
        folder = root
    if folder is None:
        raise _absent("SVHN", [r.name for r in _SVHN], root, _SVHN)
    pairs = [_mat(os.path.join(folder, r.name)) for r in _SVHN]
    print_ = fingerprint(sum(len(x) for x, _ in pairs), (t.numpy().tobytes() for pair in pairs for t in pair))
    return _dataset(
        name, pairs[0], pairs[1], [str(c) for c in range(10)], image_size, print_, [f"read from {shown(folder)}"]
    )


def _mat(path: str) -> tuple[Tensor, Tensor]:
    from scipy.io import loadmat  # comes with scikit-learn
    from scipy.io.matlab import MatReadError

    try:
        raw = loadmat(path, variable_names=["X", "y"])
        x, y = raw["X"], raw["y"].reshape(-1).astype(np.int64)
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"{shown(path)} is no SVHN file: {error}", "get the file again") from error
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8 or len(y) != x.shape[3]:
        raise DataError(
            f"{shown(path)} holds X {x.shape} {x.dtype} and y {y.shape}, not 32 x 32 x 3 x n bytes and n labels"
        )
    # the files write 10 for the digit 0
    return torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))), torch.from_numpy(y % 10)
