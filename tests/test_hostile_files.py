"""Attacks by files: arrays, pickles, archives. Each is a DataError, and nothing in them is run, written or unpacked at large."""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import os
import pickle
import random
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.config import instantiate
from sslcli.data.files import array_file
from sslcli.data.images.decode import BadImage
from sslcli.data.public import archives, idx
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files.manifest import manifest_hash
from sslcli.data.sources.pack_files.writer import PackTask, write_pack
from sslcli.errors import DataError, RequestError, SslError, StorageError
from tests import fuzz
from tests.conftest import SMOKE
from tests.data.bad_files import BAD
from tests.data.test_bad_inputs import STRANGE, two_classes

PACKAGE = Path(instantiate.__file__).parents[1]


class Payload:
    """What a pickle would run."""

    def __init__(self, function=os.system, *args):
        self.function, self.args = function, args or ("touch owned",)

    def __reduce__(self):
        return self.function, self.args


# ------------------------------------------------------------------------------------------------ foreign array files


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, print, torch.hub.load])
def test_a_pickle_in_a_pt_is_never_run_and_what_it_names_is_said(function, legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Payload(function)}, "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match="could execute code") as error:
        arrays("evil.pt")
    assert f"{function.__module__}.{function.__name__}".replace("builtins", "__builtin__") in error.value.message or (
        function.__name__ in error.value.message
    )
    assert not Path("owned").exists()


def test_a_bare_pickle_by_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x.pt", "x.pth", "x.npy", "x.npz"):
        Path(name).write_bytes(pickle.dumps(Payload()))
        with pytest.raises(DataError):
            arrays(name)
    assert not Path("owned").exists()


def test_nothing_falls_back_to_an_unsafe_load():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"] == "True", path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                name = ast.unparse(node)
                assert name not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads", "yaml.unsafe_load"), (
                    path
                )
                assert not name.endswith((".instantiate", "LOAD_TRUNCATED_IMAGES", ".extractall", ".extract")), path


def test_mutated_array_files_are_data_errors(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 6, 6), dtype=np.uint8), np.arange(20) % 2
    np.save(tmp_path / "w.npy", x)
    np.savez_compressed(tmp_path / "w.npz", x=x, y=y)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / "w.pt")
    outcomes = {"good": 0, "bad": 0}
    for ext in ("npy", "npz", "pt"):
        whole = (tmp_path / f"w.{ext}").read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(int(rng.integers(1, 6))):
                data[int(rng.integers(min(len(data), 600)))] = int(rng.integers(256))
            path = tmp_path / f"m.{ext}"
            path.write_bytes(data[: int(rng.integers(1, len(data)))] if rng.random() < 0.3 else data)
            try:
                arrays(str(path))
                outcomes["good"] += 1
            except SslError:
                outcomes["bad"] += 1
    assert outcomes["bad"] > 40


def test_array_files_that_announce_too_much(tmp_path, monkeypatch):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000000, 1000000), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 100
    (tmp_path / "x.npy").write_bytes(npy)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.writestr("x.npy", npy)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(SslError) as error:
            arrays(str(tmp_path / name))
        assert error.value.code in (3, 7)
    for ext in ("npz", "pt"):  # a bomb: small here, large unpacked
        with zipfile.ZipFile(tmp_path / f"bomb.{ext}", "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("archive/data/0", b"\0" * 30_000_000)
        assert (tmp_path / f"bomb.{ext}").stat().st_size < 100_000
    monkeypatch.setattr(array_file, "free_memory", lambda: 10_000_000)
    for ext in ("npz", "pt"):
        with pytest.raises(SslError, match="unpacks to"):
            arrays(str(tmp_path / f"bomb.{ext}"))


# ------------------------------------------------------------------------------------------------ archives


def tar_of(path: Path, members: dict[str, bytes | str | int]) -> Path:
    """bytes: a file; str: a link to it; int: a header that declares so many bytes, zeros following."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            elif isinstance(content, int):
                info.size = content
                tar.addfile(info, _Zeros(content))
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


class _Zeros(io.RawIOBase):
    def __init__(self, n: int):
        self.n = n

    def read(self, n: int = -1) -> bytes:
        n = min(n if n >= 0 else self.n, self.n)
        self.n -= n
        return bytes(n)


def test_an_archive_writes_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = {
        "../evil": b"1",
        "/tmp/sslcli-evil": b"2",
        "deep/../../good": b"3",
        "good": "/etc/passwd",
        "fifo": "x",
    }
    path = tar_of(tmp_path / "a.tar.gz", inside)
    got = [(name, handle.read()) for name, handle in archives.members(str(path), {"good", "evil"})]
    assert got == [("evil", b"1"), ("good", b"3")]  # the link of that name is passed over
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz"]
    assert not Path("/tmp/sslcli-evil").exists()


def test_an_archive_that_is_a_bomb(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", {"zeros": 50_000_000, "good": b"1"})
    assert path.stat().st_size < 500_000
    with pytest.raises(DataError, match="unpacks to more than 10"):
        list(archives.members(str(path), {"good"}, most=10_000_000))
    assert [n for n, _ in archives.members(str(path), {"good"})] == ["good"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", gzip.compress(b"no tar" * 200), b"x" * 5000], ids=range(4))
def test_an_archive_that_is_none(content, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError):
        list(archives.members(str(tmp_path / "a.tar.gz"), {"good"}))


def test_an_idx_file_that_is_a_bomb(tmp_path):
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60_000, 2000, 2000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + bytes(1_000_000)))
    with pytest.raises(DataError, match="declares"):
        idx.read(tmp_path / "a.gz")
    (tmp_path / "a.gz").write_bytes(gzip.compress(head[:4] + struct.pack(">3I", 2, 2, 2) + bytes(50_000_000)))
    with pytest.raises(DataError, match="has more"):
        idx.read(tmp_path / "a.gz")


# ------------------------------------------------------------------------------------------------ names on a terminal


def test_names_that_attack_a_terminal(cli, tmp_path):
    root = two_classes(tmp_path / "data", n=8)
    base = os.fsencode(root)
    for i, name in enumerate(
        [*STRANGE, b"\x1b]0;owned\x07", b"\x9b31m", b"a\rb", "\u202egnp".encode(), b"[bold][link=x]"]
    ):
        os.makedirs(os.path.join(base, name))
        for k in range(3):
            from tests.data.conftest import make_image

            make_image(i * 10 + k + 500).save(os.fsdecode(os.path.join(base, name, name[:200] + b"%d.png" % k)))
        with open(os.path.join(base, name, name[:200] + b".png"), "wb") as broken:
            broken.write(BAD["html"]())
    data = ["dataset=image_folder", f"dataset.path={root}", "dataset.max_bad_fraction=0.5"]
    small = ["backbone=convnet", "backbone.width=8", *SMOKE[:3], "train.batch_size=16", "train.steps=2"]
    results = [
        cli("data", "inspect", *data, "--strict"),
        cli("data", "inspect", *data, "--strict", "--json"),
        cli("pretrain", *data, *small, "--dry-run"),
        cli("pretrain", *data, *small, "dataset.resident=false", "device.workers=0"),
        cli("pretrain", *data, *small),
        cli("eval", "knn", "evaluator.k=3"),
        cli("runs"),
    ]
    for result in results:
        assert result.code == 0, result
        text = result.out + result.err
        assert all(c.isprintable() or c == "\n" for c in text), [c for c in text if not c.isprintable()][:5]
        text.encode("utf-8")  # no lone surrogate is left
    assert "[red]x[" in results[0].out  # shown as it is, not taken for markup
    json.loads(results[1].out)


# ------------------------------------------------------------------------------------------------ packs


@pytest.fixture(scope="module")
def small_pack(tmp_path_factory) -> Path:
    root = two_classes(tmp_path_factory.mktemp("pack") / "photos", n=6)
    write_pack(image_folder(str(root), image_size=16), root.parent / "p.pack")
    return root.parent / "p.pack"


@pytest.mark.parametrize("file", ["manifest.json", "index.bin", "names.bin", "shard-00000.bin"])
@pytest.mark.parametrize("how", [d for d in fuzz.DAMAGES if d not in ("types", "lie", "truncated")])
def test_damaged_file_of_a_pack(file, how, small_pack, tmp_path):
    shutil.copytree(small_pack, tmp_path / "p.pack")
    fuzz.damage(tmp_path / "p.pack", file, how, small_pack, random.Random(0))
    with pytest.raises((DataError, RequestError)):
        pack(str(tmp_path / "p.pack"))


def test_lying_manifest_of_a_pack(small_pack, tmp_path):
    """Every value replaced by one of another type or size, with the right sum: refused, or it is still a pack."""
    shutil.copytree(small_pack, tmp_path / "p.pack")
    original = json.loads((small_pack / "manifest.json").read_text())
    original.pop("sha256")
    outcomes = {"refused": 0, "opened": 0}
    for path in list(fuzz._paths(original)):
        for odd in (None, -1, 0, 1 << 70, "x", "../../etc/passwd", [], [[]], {}, {"a": 1}):
            changed = json.loads(json.dumps(original))
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = odd
            (tmp_path / "p.pack" / "manifest.json").write_text(
                json.dumps({**changed, "sha256": manifest_hash(changed)})
            )
            try:
                opened = pack(str(tmp_path / "p.pack"), resident=False)
                opened.train.decode(0)
                outcomes["opened"] += 1
            except (DataError, RequestError, BadImage):
                outcomes["refused"] += 1
    assert outcomes["refused"] > 2 * outcomes["opened"] > 0


def test_unfinished_pack_with_links(tmp_path):
    """Links in NAME.part lead nowhere: what they point to keeps its content."""
    root = two_classes(tmp_path / "photos", n=6)
    part = tmp_path / "p.pack.part"
    for name in ("journal", "shard-00000.bin", "index.bin", "names.bin", "manifest.json"):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        (tmp_path / "precious").write_bytes(b"precious" * 1000)
        (part / name).symlink_to(tmp_path / "precious")
        with contextlib.suppress(StorageError):
            write_pack(image_folder(str(root), image_size=16), tmp_path / "p.pack")
            shutil.rmtree(tmp_path / "p.pack")
        assert (tmp_path / "precious").read_bytes() == b"precious" * 1000, name
    shutil.rmtree(part, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        write_pack(image_folder(str(root), image_size=16), tmp_path / "p.pack")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "entry", ['{"position": 1}', "[1]", '{"position": -1, "records": [[1]], "sealed": [], "bad": {}}']
)
def test_journal_entry_that_is_none(entry, tmp_path, small_pack):
    root = two_classes(tmp_path / "photos", n=6)
    dataset = image_folder(str(root), image_size=16)
    part = tmp_path / "p.pack.part"
    part.mkdir()
    of = {"of": PackTask(dataset, "jpeg", None, 90).identity()}
    (part / "journal").write_text(json.dumps(of) + "\n" + entry + "\n")
    assert write_pack(dataset, tmp_path / "p.pack")
    assert pack(str(tmp_path / "p.pack")).train is not None
