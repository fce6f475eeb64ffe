"""Malformed containers fail quickly, and a reader that hangs delays neither Ctrl-C nor the exit."""

from __future__ import annotations

import functools
import io
import pickle
import signal
import tarfile
import threading
import time

import numpy as np
import pytest
import torch

from sslcli.data.loading import workers
from sslcli.data.public import archives
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.tar import tar
from sslcli.data.sources.tar_files import headers as tar_headers
from sslcli.errors import DataError, MachineError, SslError
from sslcli.runtime.thread_pool import ordered_map
from tests.limits import cost

BLOCK = tarfile.BLOCKSIZE


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLCLI_DATA", str(tmp_path / "data"))


def header(kind: bytes = tarfile.REGTYPE, size: bytes | int = 0, name: str = "c0/x.png") -> bytes:
    """A header whose sum is right, with any size (12 bytes as they stand in the file)."""
    about = tarfile.TarInfo(name)
    about.type = kind
    about.size = size if isinstance(size, int) else 0
    raw = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    if isinstance(size, bytes):
        raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def negative(n: int) -> bytes:
    return b"\xff" + ((1 << 88) - n).to_bytes(11, "big")


def extended(**values: str) -> bytes:
    """A pax header."""
    text = b""
    for key, value in values.items():
        line = f" {key.replace('_', '.')}={value}\n".encode()
        size = len(line) + 2
        text += str(size).encode() + line if len(str(size)) == 2 else str(size + 1).encode() + line
    return header(tarfile.XHDTYPE, len(text)) + text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")


ATTACKS = {
    "negative size": header(size=negative(BLOCK)),
    "negative size of two blocks": header() * 3 + header(size=negative(2 * BLOCK)),
    "very negative size": header(size=negative(1 << 60)),
    "huge size": header(size=b"\x80" + (1 << 80).to_bytes(11, "big")),
    "negative size by pax": extended(size="-512") + header(),
    "very negative size by pax": extended(size="-51200000") + header(),
    "huge extended header": header(tarfile.XHDTYPE, 1 << 33),
    "negative extended header": header(tarfile.XHDTYPE, negative(BLOCK)),
    "huge long name": header(tarfile.GNUTYPE_LONGNAME, 1 << 33),
    "negative long name": header(tarfile.GNUTYPE_LONGNAME, negative(BLOCK)),
    "extended headers without end": extended(comment="x") * 3000,
    "sparse cut short": header(tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + header(tarfile.GNUTYPE_SPARSE)[483:],
    "sparse 1.0 with endless map": extended(GNU_sparse_major="1", GNU_sparse_minor="0")
    + header(size=BLOCK)
    + b"9" * BLOCK,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_malformed_tar_fails_quickly(name, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("c0/empty.txt"))
    (tmp_path / "bad.tar").write_bytes(buffer.getvalue()[:BLOCK] + ATTACKS[name] + b"\0" * 20 * BLOCK)

    def read() -> None:
        with pytest.raises(SslError) as caught:
            tar(path="bad.tar", image_size=16)
        assert isinstance(caught.value, DataError)
        assert caught.value.code == 7

    _, took = cost(read, 5)
    assert took < 5


@pytest.mark.parametrize("name", ["negative size", "huge extended header", "extended headers without end"])
def test_malformed_archive_fails_quickly(name, tmp_path):
    import gzip

    (tmp_path / "bad.tar.gz").write_bytes(gzip.compress(ATTACKS[name] + b"\0" * 20 * BLOCK))
    with pytest.raises(DataError, match="corrupt"):
        list(archives.members("bad.tar.gz", {"wanted"}))


def test_offsets_of_members_grow(tmp_path):
    """Offsets of members increase, for any header in any tar dialect."""

    class Circle:
        fileobj, members, offset = io.BytesIO(), [], 0

        def next(self):
            about = tarfile.TarInfo("x")
            about.offset = 512
            return about

    with pytest.raises(tarfile.ReadError, match="declares"):
        list(tar_headers.members(Circle()))  # type: ignore[arg-type]


def test_malformed_npz_fails_quickly(tmp_path):
    import zipfile

    shape = io.BytesIO()
    np.lib.format.write_array_header_1_0(shape, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile("bad.npz", "w") as file:
        file.writestr("x.npy", shape.getvalue() + b"\0" * 100)
    _, took = cost(functools.partial(pytest.raises, (DataError, MachineError), arrays, path="bad.npz"), 5)
    assert took < 5


# ------------------------------------------------------------------------------------------------ threads


def test_order_is_kept_and_prefetch_is_bounded():
    made: list[int] = []
    found = ordered_map(lambda i: made.append(i) or i * i, range(100), 3, ahead=5)
    assert next(found) == 0
    time.sleep(0.05)
    assert len(made) <= 7
    assert list(found) == [i * i for i in range(1, 100)]


def test_reader_error_is_raised_in_order():
    found = ordered_map(lambda i: 1 // (3 - i), range(10), 2)
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_reader_that_hangs(number, cli, tmp_path, monkeypatch, request):
    """An image whose read never returns, as on a dead network disk: the command exits at once."""
    from PIL import Image

    from sslcli.data.images import decode

    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "photos" / f"{i}.png")
    hang, reached = threading.Event(), threading.Event()
    if number == signal.SIGINT:  # a background job of a shell inherits it ignored
        before = signal.signal(number, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(number, before))

    def never(*args):
        reached.set()
        hang.wait()

    monkeypatch.setattr(decode, "read_header", never)

    def press() -> None:
        reached.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    threading.Thread(target=press, daemon=True).start()
    before_command = set(threading.enumerate())
    try:
        result = cli("pretrain", "dataset=image_folder", "dataset.path=photos", "train.batch_size=4")
        assert result.code == (130 if number == signal.SIGINT else 75), result
        assert all(t.daemon for t in set(threading.enumerate()) - before_command)
    finally:
        hang.set()


# ------------------------------------------------------------------------------------------------ shared memory


class Frames:
    """A job whose frames are two small tensors."""

    def __getitem__(self, spec):
        return 0, torch.tensor([1, 2]), [torch.arange(6).view(2, 3), torch.ones(2)], {1: "why"}


def test_full_shared_memory_falls_back_to_pipes(monkeypatch, capfd):
    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    item = workers._SharedMemoryTask(Frames())[0, torch.tensor([1, 2])]  # type: ignore[arg-type]
    assert all(frame.is_shared() for frame in item[2])  # type: ignore[index]
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    workers._warn_full.cache_clear()
    for _ in range(2):
        item = workers._SharedMemoryTask(Frames())[0, torch.tensor([1, 2])]  # type: ignore[arg-type]
        epoch, ids, frames, bad = workers._to_tensors(pickle.loads(pickle.dumps(item)))
        assert (epoch, ids.tolist(), bad) == (0, [1, 2], {1: "why"})
        assert torch.equal(frames[0], torch.arange(6).view(2, 3))
    assert capfd.readouterr().err.count("shared memory (/dev/shm) is full") == 1
