"""The published files of each data set, with their sizes and MD5 checksums (as published by torchvision)."""

from __future__ import annotations

from collections.abc import Iterable

from sslcli.data.public.download import RemoteFile

IDX_STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"


def _gzipped(base: str, sums: Iterable[tuple[int, str]]) -> list[RemoteFile]:
    return [
        RemoteFile(f"{stem}.gz", (f"{base}{stem}.gz",), length, checksum)
        for stem, (length, checksum) in zip(IDX_STEMS, sums, strict=True)
    ]


IDX_SETS: dict[str, tuple[str, list[RemoteFile], str, tuple[str, ...]]] = {  # folder, files, first labels, classes
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
        "",  # unknown: identified by the name of the folder, or as the only data set
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}

CIFAR10_ARCHIVE = RemoteFile(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    170498071,
    "c58f30108f718f92721af3b95e74349a",
)

CIFAR10 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}

# Mean and standard deviation of the training images (`image_stats`) of files that are identified by their checksums.
STATS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # by fingerprint
    "60000-ae318294c61e4719": (
        (0.49139967861519607, 0.4821584083946078, 0.4465309144454658),
        (0.24703223246328196, 0.24348512800005592, 0.2615878417279644),
    ),
}

CIFAR100_ARCHIVE = RemoteFile(
    "cifar-100-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
    169001437,
    "eb9058c3a382ffc7106e4002c42a8d85",
)

CIFAR100 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}

STL_ARCHIVE = RemoteFile(
    "stl10_binary.tar.gz",
    ("https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
    2640397119,
    "91f7769df0f17e558f3565bffb0c7dfb",
)
STL_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin")
STL_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

SVHN = [
    RemoteFile(
        "train_32x32.mat",
        ("http://ufldl.stanford.edu/housenumbers/train_32x32.mat",),
        182040794,
        "e26dedcc434d2e4c54c9b2d4a06d8373",
    ),
    RemoteFile(
        "test_32x32.mat",
        ("http://ufldl.stanford.edu/housenumbers/test_32x32.mat",),
        64275384,
        "eb5a983be6a315427106f1b164d9cef3",
    ),
]
