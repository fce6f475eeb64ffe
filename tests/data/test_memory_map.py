"""Detection of memory-mapped files that are modified: otherwise SIGBUS, or silently other samples."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch

from sslcli.data.files import memory_map
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.pack import pack
from sslcli.errors import DataError
from sslcli.views import clean

RNG = np.random.default_rng(0)


def read(dataset, workers=0):
    """All samples, as an evaluation sees them."""
    return torch.cat([x for _, x in iterate_batches(dataset.train, clean(dataset), batch_size=4, workers=workers)])


@pytest.mark.parametrize("shape", [(3, 8, 8), (12, 8, 8)], ids=["shorter", "as long"])
def test_modified_npy_is_detected(shape, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8))
    data = arrays(str(path))
    assert len(read(data)) == 12
    np.save(path, RNG.integers(0, 256, shape, dtype=np.uint8))
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"x\.npy was modified while in use"):
        read(data)
    path.unlink()  # the error keeps the map


def test_replaced_or_removed_npy_stays_mapped(tmp_path):
    path, other = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(path, RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8))
    np.save(other, np.zeros((2, 8, 8), np.uint8))
    data = arrays(str(path))
    before = read(data)
    os.replace(other, path)
    assert torch.equal(read(data), before)
    path.unlink()
    assert torch.equal(read(data), before)


def test_closed_memory_map_is_not_watched(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8))
    data = arrays(str(path))
    watched = [name for name, _ in memory_map._mapped.values()]
    assert str(path) in watched
    del data
    gc.collect()
    assert str(path) not in [name for name, _ in memory_map._mapped.values()]


@pytest.mark.parametrize("workers", [0, 1])
def test_pack_truncated_while_in_use_is_detected(workers, cli, make_folder, tmp_path):
    root = make_folder({"cat": 6, "dog": 6})
    made = cli("data", "pack", "dataset=image_folder", f"dataset.path={root}", "out=x.pack", "format=raw")
    assert made.code == 0, made.err
    data = pack("x.pack", resident=False)
    whole = len(read(data))
    assert whole == len(data.train)
    views = clean(data)
    batches = iterate_batches(data.train, views, batch_size=1, workers=workers)
    next(batches)
    with open(tmp_path / "x.pack" / "shard-00000.bin", "r+b") as file:
        file.truncate(1)
    with pytest.raises(DataError, match=r"shard-00000\.bin was modified while in use"):
        list(batches)
    (tmp_path / "x.pack" / "shard-00000.bin").unlink()  # the error keeps the map
