"""The published file formats, on small files made here, and on the real files where they are available."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.data.fingerprint import fingerprint
from sslcli.data.public import archives, download, idx, urls
from sslcli.data.public.cifar import cifar10, cifar100
from sslcli.data.public.digits import digits
from sslcli.data.public.download import RemoteFile
from sslcli.data.public.mnist import fashion_mnist, kmnist, mnist
from sslcli.data.public.stl10 import stl10
from sslcli.data.public.svhn import svhn
from sslcli.data.stats import image_stats
from sslcli.errors import DataError, MachineError, RequestError


def test_digits():
    d = digits()
    assert (len(d.train), len(d.test), d.shape) == (1437, 360, (1, 8, 8))
    assert d.train.resident.tensor.dtype == torch.uint8
    assert (int(d.train.resident.tensor.min()), int(d.train.resident.tensor.max())) == (0, 255)
    assert torch.bincount(d.test.labels).min() >= 34
    again, other = digits(), digits(split_seed=1)
    assert again.fingerprint == d.fingerprint
    assert torch.equal(again.test.resident.tensor, d.test.resident.tensor)
    assert not torch.equal(other.test.labels, d.test.labels)
    assert digits(image_size=16).shape == (1, 16, 16)
    with pytest.raises(RequestError, match="image_size"):
        digits(image_size=0)


def write_idx(path: Path, array: np.ndarray, packed: bool) -> None:
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


def idx_set(folder: Path, first: str, packed: bool = True, n: int = 30) -> np.ndarray:
    rng = np.random.default_rng(len(first))
    x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    y = np.array([int(c) for c in first] + [i % 10 for i in range(n - 10)], np.uint8)
    write_idx(folder / "train-images-idx3-ubyte", x, packed)
    write_idx(folder / "train-labels-idx1-ubyte", y, packed)
    write_idx(folder / "t10k-images-idx3-ubyte", x[:7], packed)
    write_idx(folder / "t10k-labels-idx1-ubyte", y[:7], packed)
    return x


@pytest.mark.parametrize("packed", [True, False])
def test_idx_data_sets_are_distinguished(packed, tmp_path):
    x = idx_set(tmp_path / "some" / "where", "9003027255", packed)
    idx_set(tmp_path / "MNIST" / "raw", "5041921314", packed, 40)
    idx_set(tmp_path / "third", "8701424811", packed, 50)
    d = fashion_mnist(path=str(tmp_path))
    assert (len(d.train), len(d.test), d.shape) == (30, 7, (1, 28, 28))
    assert np.array_equal(d.train.resident.tensor[:, 0].numpy(), x)
    assert d.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert d.classes[9] == "Ankle boot"
    assert "where" in d.notes[0]
    assert len(mnist(path=str(tmp_path)).train) == 40
    assert len(kmnist(path=str(tmp_path)).train) == 50


def test_other_idx_data_set_is_not_mnist(tmp_path):
    idx_set(tmp_path / "fashion", "9003027255")
    with pytest.raises(RequestError, match="fashion holds another data set") as error:
        mnist(path=str(tmp_path))
    assert "dataset.download=true" in error.value.hint
    assert "11.6 MB" in error.value.hint


def test_corrupt_idx(tmp_path):
    write_idx(tmp_path / "a", np.zeros((3, 4, 4), np.uint8), False)
    whole = (tmp_path / "a").read_bytes()
    packed = gzip.compress(whole)
    for name, data, reason in [
        ("short", whole[:-1], "expected 48"),
        ("long", whole + b"\0", "more"),
        ("other.txt", b"hello world", "not an IDX file"),
        ("none", b"", "nothing"),
        ("cut.gz", packed[:-12], "corrupt"),
        ("not.gz", whole, "corrupt"),
        ("huge", b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**31, 9), "declares"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=reason):
            idx.read(tmp_path / name)


def test_real_fashion_mnist():
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("no /usr/share/datasets/fashion-mnist (Debian: dataset-fashion-mnist)")
    d = fashion_mnist(path="/usr/share/datasets")
    assert (len(d.train), len(d.test)) == (60000, 10000)
    assert d.values.mean == (0.0,)  # dark: the background stays 0
    assert abs(d.values.std[0] - 0.3530) < 1e-4
    with pytest.raises(RequestError):
        mnist(path="/usr/share/datasets")


PUBLISHED_CIFAR10 = fingerprint(60000, (s.encode() for s in urls.CIFAR10.values()))


def test_known_stats_of_cifar10():
    mean, std = urls.STATS[PUBLISHED_CIFAR10]
    assert np.allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-5)  # as everybody has them
    assert np.allclose(std, (0.2470, 0.2435, 0.2616), atol=5e-5)


def test_known_stats_are_those_of_the_files(test_data):
    if not any(test_data.glob("**/cifar-10-batches-py")):
        pytest.skip("no CIFAR-10 there")
    d = cifar10(path=str(test_data))
    assert d.fingerprint == PUBLISHED_CIFAR10
    assert (d.values.mean, d.values.std) == image_stats(d.train) == urls.STATS[PUBLISHED_CIFAR10]


def test_unpickling_reads_what_pickle_reads():
    lines = pickle.dumps([1, 2.5, ["x" * 300_000], None], protocol=0)  # each ends with a line feed
    assert archives.unpickle(lines) == [1, 2.5, ["x" * 300_000], None]
    big = {b"data": np.arange(400_000, dtype=np.int64), b"labels": list(range(40_000)), b"names": [b"n" * 70] * 9_000}
    for protocol in (3, 4):
        got = archives.unpickle(pickle.dumps(big, protocol=protocol))
        assert np.array_equal(got[b"data"], big[b"data"])
        assert (got[b"labels"], got[b"names"]) == (big[b"labels"], big[b"names"])
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        archives.unpickle(pickle.dumps(big)[:-9_000])


def cifar_files(monkeypatch, n: int = 4) -> dict[str, bytes]:
    """Files of CIFAR-10's layout, and their sums put in place of the published ones."""
    rng = np.random.default_rng(0)
    files = {}
    for f in urls.CIFAR10:
        if f == "batches.meta":
            content = {b"label_names": [f"class{i}".encode() for i in range(10)]}
        else:
            content = {b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), b"labels": [i % 10 for i in range(n)]}
        files[f] = pickle.dumps(content, protocol=3)  # bytes stay bytes, as in the published files
    sums = {f: hashlib.md5(b).hexdigest() for f, b in files.items()}
    monkeypatch.setattr(urls, "CIFAR10", sums)
    return files


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_cifar_layout(kind, monkeypatch, tmp_path):
    files = cifar_files(monkeypatch)
    if kind == "folder":
        (tmp_path / "deep" / "cifar-10-batches-py").mkdir(parents=True)
        for f, b in files.items():
            (tmp_path / "deep" / "cifar-10-batches-py" / f).write_bytes(b)
    else:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            for f, b in files.items():
                info = tarfile.TarInfo(f"../../{f}")  # paths of an archive are never followed
                info.size = len(b)
                tar.addfile(info, io.BytesIO(b))
    d = cifar10(path=str(tmp_path))
    assert (len(d.train), len(d.test), d.shape) == (20, 4, (3, 32, 32))
    first = pickle.loads(files["data_batch_1"])[b"data"].reshape(-1, 3, 32, 32)
    assert np.array_equal(d.train.resident.tensor[:4].numpy(), first)
    assert d.classes[3] == "class3"


def test_cifar_with_unknown_md5_is_not_unpickled(monkeypatch, tmp_path):
    files = cifar_files(monkeypatch)
    for f, b in files.items():
        (tmp_path / f).write_bytes(b)

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="data_batch_2 is not the published file"):
        cifar10(path=str(tmp_path))
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        archives.unpickle(pickle.dumps(Evil()))
    assert not (tmp_path / "owned").exists()


def test_stl10_layout(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, part in (("train_X", x[:3]), ("test_X", x[3:5]), ("unlabeled_X", x)):
        part.transpose(0, 1, 3, 2).tofile(folder / f"{name}.bin")
    np.array([1, 10, 5], np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 3], np.uint8).tofile(folder / "test_y.bin")
    d = stl10(path=str(tmp_path))
    assert np.array_equal(d.train.resident.tensor.numpy(), x[:3])
    assert d.train.labels.tolist() == [0, 9, 4]
    assert d.pretrain is d.unlabelled
    assert len(d.unlabelled) == 6
    assert np.array_equal(d.unlabelled.resident.tensor[torch.tensor([5, 0])].numpy(), x[[5, 0]])
    (folder / "test_X.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="expected a multiple of 27,648"):
        stl10(path=str(tmp_path))


def test_svhn_layout(tmp_path):
    from scipy.io import savemat

    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    for name in ("train", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": np.array([[10], [1], [2], [9], [10]], np.uint8)})
    d = svhn(path=str(tmp_path))
    assert d.train.labels.tolist() == [0, 1, 2, 9, 0]
    assert np.array_equal(d.train.resident.tensor[2].permute(1, 2, 0).numpy(), x[..., 2])
    (tmp_path / "test_32x32.mat").write_bytes(b"garbage")
    with pytest.raises(DataError, match="not an SVHN file"):
        svhn(path=str(tmp_path))


@pytest.mark.parametrize("build", [mnist, fashion_mnist, kmnist, cifar10, cifar100, stl10, svhn])
def test_missing_data_set_error_has_hint(build, tmp_path, messages):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RequestError) as error:
            build(path=str(path))
        assert str(path) in error.value.message
        assert "not found: expected" in error.value.message
        assert "dataset.path=" in error.value.hint
        assert "dataset.download=true" in error.value.hint
        assert "MB" in error.value.hint or "GB" in error.value.hint
    assert messages == []
    assert not (tmp_path / "nowhere").exists()


def test_download(tmp_path, messages):
    source = tmp_path / "server"
    source.mkdir()
    (source / "a.bin").write_bytes(b"x" * 2_500_000)
    good = RemoteFile("a.bin", ((source / "a.bin").as_uri(),), 2_500_000, hashlib.md5(b"x" * 2_500_000).hexdigest())
    to = tmp_path / "to"
    download.download_files([good], str(to))
    assert (to / "a.bin").read_bytes() == (source / "a.bin").read_bytes()
    assert messages == [f"downloading 1 file (2.5 MB) from {source.as_uri()}/ to {to}"]
    download.download_files([good], str(to))
    assert len(messages) == 1  # it is there
    for bad in (RemoteFile("b", good.urls, 2_500_000, "0" * 32), RemoteFile("b", good.urls, 1000, good.md5)):
        with pytest.raises(DataError, match="not the published file"):
            download.download_files([bad], str(to))
    with pytest.raises(MachineError, match="cannot be downloaded"):
        download.download_files([RemoteFile("c", ((source / "none").as_uri(),), 5, "0")], str(to))
    assert sorted(p.name for p in to.iterdir()) == ["a.bin"]  # nothing half


def test_download_requires_request(tmp_path, monkeypatch, messages):
    idx_set(tmp_path / "server", "5041921314")
    served = []
    for stem in urls.IDX_STEMS:
        data = (tmp_path / "server" / f"{stem}.gz").read_bytes()
        url = (tmp_path / "server" / f"{stem}.gz").as_uri()
        served.append(RemoteFile(f"{stem}.gz", (url,), len(data), hashlib.md5(data).hexdigest()))
    title, _, first, classes = urls.IDX_SETS["mnist"]
    monkeypatch.setitem(urls.IDX_SETS, "mnist", (title, served, first, classes))
    d = mnist(path=str(tmp_path / "new"), download=True)
    assert len(d.train) == 30
    assert (tmp_path / "new" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists()
    assert "downloading 4 files" in messages[0]
    assert len(mnist(path=str(tmp_path / "new")).train) == 30


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    from sslcli.data.public.digits import _read_digits

    pixels, labels = _read_digits()
    raw = load_digits()
    assert (pixels == raw.data).all()
    assert (labels == raw.target).all()
