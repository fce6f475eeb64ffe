"""The digits of scikit-learn: 1,797 images of 8 x 8 pixels, nothing to download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.public.build import labeled_images
from sslcli.data.split import split


def digits(name: str = "digits", image_size: int | None = None, holdout: float = 0.2, split_seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, included in scikit-learn.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998. Values 0..16 become uint8 0..255.
    """
    pixels, labels = _read_digits()
    x = torch.from_numpy(np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8))  # (1797, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64))
    train_ids, held_ids = split(len(x), holdout, split_seed, y)
    return labeled_images(
        name,
        (x[train_ids], y[train_ids]),
        (x[held_ids], y[held_ids]),
        [str(c) for c in range(10)],
        image_size,
        fingerprint(len(x), [x.numpy().tobytes(), y.numpy().tobytes(), held_ids.numpy().tobytes()]),
        dark=True,
    )


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 64) values 0..16 and (1797,) labels. Reads the table inside scikit-learn directly, because importing
    `sklearn.datasets` takes 1.5 seconds, and calls `load_digits` where the table is elsewhere."""
    from importlib.util import find_spec

    spec = find_spec("sklearn")
    table = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else Path()
    if not table.is_file():
        from sklearn.datasets import load_digits

        raw = load_digits()
        return raw.data, raw.target
    rows = np.loadtxt(table, delimiter=",", dtype=np.uint8)
    return rows[:, :-1], rows[:, -1]
