"""Street View House Numbers, from the published MATLAB files."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.public import urls
from sslcli.data.public.archives import find_folder, not_found_error, require_root
from sslcli.data.public.build import labeled_images
from sslcli.data.public.download import download_files
from sslcli.errors import DataError


def svhn(name: str = "svhn", path: str = ".data", image_size: int | None = None, download: bool = False) -> Dataset:
    """Street View House Numbers: 73,257 + 26,032 digits, 32 x 32 (Netzer et al., NIPS workshop 2011)."""
    root = require_root(path, "SVHN", download)
    folder = find_folder(root, [r.name for r in urls.SVHN])
    if folder is None and download:
        download_files(urls.SVHN, root)
        folder = root
    if folder is None:
        raise not_found_error("SVHN", [r.name for r in urls.SVHN], root, urls.SVHN)
    pairs = [read_mat(os.path.join(folder, r.name)) for r in urls.SVHN]
    print_ = fingerprint(sum(len(x) for x, _ in pairs), (t.numpy().tobytes() for pair in pairs for t in pair))
    return labeled_images(
        name, pairs[0], pairs[1], [str(c) for c in range(10)], image_size, print_, [f"read from {escape(folder)}"]
    )


def read_mat(path: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) of an SVHN file."""
    from scipy.io import loadmat  # a dependency of scikit-learn
    from scipy.io.matlab import MatReadError

    try:
        raw = loadmat(path, variable_names=["X", "y"])
        x, y = raw["X"], raw["y"].reshape(-1).astype(np.int64)
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"{escape(path)} is not an SVHN file: {error}", "download the file again") from error
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8 or len(y) != x.shape[3]:
        raise DataError(
            f"{escape(path)} holds X {x.shape} {x.dtype} and y {y.shape}; expected (32, 32, 3, n) uint8 and n labels"
        )
    # the files use label 10 for the digit 0
    return torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))), torch.from_numpy(y % 10)
