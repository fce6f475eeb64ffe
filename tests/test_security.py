"""Attacks, each refused: the exit code, no traceback, and nothing that was not asked for has happened."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import os
import pickle
import socket
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sslcli import build, checkpoint, config, secret
from sslcli.data import arrayfile, idx, published
from sslcli.data.arrays import arrays
from sslcli.errors import DataError, RequestError, SslError, TrainingError
from tests.conftest import SMOKE
from tests.data.bad_files import BAD
from tests.data.test_bad_inputs import STRANGE, two_classes

PACKAGE = Path(build.__file__).parent


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
    with pytest.raises(DataError, match="could run code") as error:
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
    monkeypatch.setattr(arrayfile, "free_memory", lambda: 10_000_000)
    for ext in ("npz", "pt"):
        with pytest.raises(SslError, match="unpacks to"):
            arrays(str(tmp_path / f"bomb.{ext}"))


# ------------------------------------------------------------------------------------------------ safetensors


def _lying(kind: str) -> bytes:
    whole = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return {
        "huge header": struct.pack("<Q", 1 << 62) + whole,
        "header beyond the file": struct.pack("<Q", 5000) + whole,
        "no json": struct.pack("<Q", 8) + b"nonsense",
        "offsets beyond the file": struct.pack("<Q", len(whole)) + whole,
        "shape beyond the bytes": struct.pack("<Q", len(whole) - 0) + whole.replace(b"[2]", b"[9]") + b"\0" * 8,
        "empty": b"",
    }[kind]


LIES = [
    "huge header",
    "header beyond the file",
    "no json",
    "offsets beyond the file",
    "shape beyond the bytes",
    "empty",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, made once."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("security")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["pretrain", *SMOKE, "train.steps=2"]) == 0
    finally:
        os.chdir(before)
    return next(p for p in (folder / "runs").iterdir() if not p.is_symlink())


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it, to be spoilt."""
    import shutil

    to = tmp_path / "runs" / finished.name
    shutil.copytree(finished, to, symlinks=True)
    return to


@pytest.mark.parametrize("kind", LIES)
def test_a_lying_safetensors_with_the_right_sum(kind, cli, run):
    """The sums in a manifest protect against accidents; whoever can write the file can write the sum."""
    content = _lying(kind)
    (run / "encoder.safetensors").write_bytes(content)
    info = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps({**info, "sha256": hashlib.sha256(content).hexdigest()}))
    result = cli("eval", "knn", f"run={run}")
    assert result.code in (4, 7), result
    assert result.err.count("error: ") == 1


@pytest.mark.parametrize("kind", LIES)
def test_a_lying_checkpoint_with_the_right_sums(kind, run):
    step = checkpoint.existing(run / "checkpoints")[0]
    content = _lying(kind)
    (step / "model.safetensors").write_bytes(content)
    manifest = json.loads((step / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.pop("sha256", None)
    own = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (step / "manifest.json").write_text(json.dumps({**manifest, "sha256": own}))
    with pytest.raises(TrainingError):
        checkpoint.load(step)


# ------------------------------------------------------------------------------------------------ _target_

HOSTILE = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "pickle.loads",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "pathlib.Path.write_text",
    "importlib.import_module",
    "hydra.utils.instantiate",
    "sslcli.cli.main",
    "sslcli.run.replace_file",
    "sslcli.disk.write_file",
    "sslcli.checkpoint.clean",
    "sslcli.build.resolve",
    "sslcli.data.arrays.torch.load",
    "sslcli.data.classic.os.system",
    "torch.nn.functional.os",
    "torch.optim.sgd.torch.load",
    "sslcli.data.loader.mp",
    "sslcli..data.x",
    ".x",
    "sslcli.data.",
    "sslcli.data.a b",
    "sslcli.data.\0",
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("group", ["method", "dataset"])
def test_hostile_targets(target, group):
    with pytest.raises(RequestError):
        build.build(group, {"_target_": target, "path": "x", "command": "touch owned"})


REEXPORTED = [  # the name is in a trusted module, the thing itself is not
    "sslcli.data.files.Path",
    "sslcli.data.loader.Draw",
    "sslcli.data.headers.ThreadPoolExecutor",
    "sslcli.methods.base.Draw",
    "torch.nn.modules.module.OrderedDict",
    "torch.nn.modules.module.Tensor",
]


@pytest.mark.parametrize("target", REEXPORTED)
def test_a_name_that_points_elsewhere(target):
    with pytest.raises(RequestError, match="not a class or function of a trusted package"):
        build.resolve(target)


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "__class__"])
@pytest.mark.parametrize("target", ["sslcli.backbones.mlp.MLP", "torchvision.models.resnet18", "timm.create_model"])
def test_hydras_other_keys_are_refused(target, key):
    with pytest.raises(RequestError, match=key):
        build.check("backbone", {"_target_": target, key: [1]}, given=["input_shape", "model_name"])


@pytest.mark.parametrize(
    "words",
    [
        ["dataset._target_=os.system"],
        ["method._target_=torch.load", "+method.f=x.pt", "+method.weights_only=false"],
        ["backbone._target_=pathlib.Path.write_text"],
        ["+dataset._args_=[x]"],
        ["+hydra.callbacks.evil._target_=os.system"],
        ["hydra.launcher._target_=subprocess.run"],
        ["hydra.sweeper._target_=builtins.eval"],
        ["hydra.searchpath=[file:///tmp]"],
        ["dataset=../../../etc/passwd"],
        ["method=../dataset/digits"],
    ],
    ids=str,
)
def test_hostile_words_at_the_door(cli, words):
    result = cli("pretrain", *words)
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert list(Path.cwd().iterdir()) == []


# ------------------------------------------------------------------------------------------------ config of a stranger


GLOBAL = "# @package _global_\n"
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_config_dir_with_hostile_yaml(cli, tmp_path):
    attacks = {
        "target": f"{GLOBAL}dataset: {{_target_: os.system, command: touch owned}}\n",
        "tag": "x: !!python/object/apply:os.system ['touch owned']\n",
        "module": "x: !!python/module:os\n",
        "callback": f"{GLOBAL}hydra: {{callbacks: {{e: {{_target_: torch.load, f: evil.pt, weights_only: false}}}}}}\n",
        "logging": f"{GLOBAL}hydra: {{job_logging: {{handlers: {{h: {{(): os.system, command: touch owned}}}}}}}}\n",
        "bomb": BOMB,
        "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
        "wide": "a: [" + "1," * 30_000 + "1]\n",
        "large": "a: '" + "x" * 2_000_000 + "'\n",
        "latin": "a: caf\xe9\n",
        "zero": "a: \0\n",
    }
    for name, text in attacks.items():
        folder = tmp_path / name
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment" / "evil.yaml").write_bytes(text.encode("latin-1"))
        began = time.perf_counter()
        result = cli("pretrain", "experiment=evil", "--config-dir", str(folder), "--dry-run")
        assert result.code == 2, (name, result)
        assert time.perf_counter() - began < 5, name
        assert result.err.startswith("error: "), (name, result)
    assert not (tmp_path / "owned").exists()


def test_listing_looks_at_foreign_yaml_too(cli, tmp_path):
    for name, text in {
        "bomb": BOMB,
        "tag": "x: !!python/object/apply:os.system ['touch owned']\n",
        "list": "- 1\n",
    }.items():
        (tmp_path / name / "method").mkdir(parents=True)
        (tmp_path / name / "method" / "evil.yaml").write_text(text)
        result = cli("list", "methods", "--config-dir", str(tmp_path / name))
        assert result.code == 2, (name, result)
    assert not (tmp_path / "owned").exists()


def test_a_config_dir_that_blocks_or_never_ends(tmp_path, monkeypatch):
    for name, make in {
        "fifo": lambda p: os.mkfifo(p),
        "zero": lambda p: p.symlink_to("/dev/zero"),
        "dangling": lambda p: p.symlink_to(tmp_path / "nowhere"),
        "folder": lambda p: p.mkdir(),
    }.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / "x.yaml")
        with pytest.raises(RequestError):
            config.check_foreign_yaml(tmp_path / name)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    config.check_foreign_yaml(tmp_path / "loop")
    monkeypatch.setattr(config, "MAX_ENTRIES", 3)
    with pytest.raises(RequestError, match="more than 3 files"):
        config.check_foreign_yaml(tmp_path)


def test_an_edited_config_in_a_run_folder(cli, run):
    original = yaml.safe_load((run / "config.yaml").read_text())
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    edits = {
        "method": {**original, "method": {**original["method"], "_target_": "os.system"}},
        "dataset": {**original, "dataset": {"_target_": "torch.load", "f": "x"}},
        "backbone": {**original, "backbone": {"_target_": "builtins.eval"}},
        "optimizer": {**original, "optimizer": {"_target_": "subprocess.run", "lr": 1, "weight_decay": 0}},
        "no target": {**original, "method": {}},
        "wrong group": {**original, "method": [1]},
        "wrong type": {**original, "train": {**original["train"], "epochs": "many", "steps": [1]}},
        "unknown key": {**original, "evil": 1},
        "no train": {k: v for k, v in original.items() if k != "train"},
        "list": [1, 2],
        "nothing": None,
        "bomb": BOMB,
        "tag": "x: !!python/object/apply:os.system ['touch owned']",
        "binary": b"\xff\xfe\0",
    }
    for name, edit in edits.items():
        content = (
            edit
            if isinstance(edit, bytes)
            else edit.encode()
            if isinstance(edit, str)
            else yaml.safe_dump(edit).encode()
        )
        (run / "config.yaml").write_bytes(content)
        result = cli("resume", str(run))
        assert result.code == 2, (name, result)
        assert result.err.startswith("error: "), (name, result)
    assert not (Path.cwd() / "owned").exists()


def test_an_edited_encoder_json(cli, run):
    original = json.loads((run / "encoder.json").read_text())
    edits = {
        "target": {**original, "backbone": {"_target_": "os.system", "command": "touch owned"}},
        "write": {**original, "backbone": {"_target_": "pathlib.Path.write_text"}},
        "argument": {**original, "backbone": {**original["backbone"], "evil": 1}},
        "type": {**original, "backbone": {**original["backbone"], "width": "wide"}},
        "shape": {**original, "input_shape": "abc"},
        "no backbone": {k: v for k, v in original.items() if k != "backbone"},
        "list": {**original, "backbone": [1]},
    }
    for name, edit in edits.items():
        (run / "encoder.json").write_text(json.dumps(edit))
        result = cli("eval", "knn", f"run={run}")
        assert result.code in (2, 4), (name, result)
        assert result.err.startswith("error: "), (name, result)
    assert not (Path.cwd() / "owned").exists()


# ------------------------------------------------------------------------------------------------ secrets


def test_secrets_are_not_written_down(cli, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    result = cli("pretrain", *SMOKE, "train.steps=1", "dataset.name=${oc.env:MY_API_KEY}")
    assert result.code == 0, result
    written = [p for p in Path("runs").rglob("*") if p.is_file()]
    assert len(written) > 5
    for path in written:
        content = path.read_bytes()
        assert b"hunter2" not in content, path


def test_names_that_are_secret():
    node = {
        "logger": {"api_key": "a", "tokenizer": "byte", "hf_token": "b", "url": "c"},
        "keys": ["d"],
        "password": "e",
    }
    assert secret.masked(node) == {
        "logger": {"api_key": "***", "tokenizer": "byte", "hf_token": "***", "url": "c"},
        "keys": ["d"],
        "password": "***",
    }
    assert secret.masked_words(["pretrain", "logger.api_key=abc", "x=y"]) == ["pretrain", "logger.api_key=***", "x=y"]


# ------------------------------------------------------------------------------------------------ archives


def tar_of(path: Path, members: dict[str, bytes | str | int]) -> Path:
    """bytes: a file; str: a link to it; int: a header that announces so many bytes, zeros following."""
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
    got = [(name, handle.read()) for name, handle in published.members(str(path), {"good", "evil"})]
    assert got == [("evil", b"1"), ("good", b"3")]  # the link of that name is passed over
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz"]
    assert not Path("/tmp/sslcli-evil").exists()


def test_an_archive_that_is_a_bomb(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", {"zeros": 50_000_000, "good": b"1"})
    assert path.stat().st_size < 500_000
    with pytest.raises(DataError, match="unpacks to more than 10"):
        list(published.members(str(path), {"good"}, most=10_000_000))
    assert [n for n, _ in published.members(str(path), {"good"})] == ["good"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", gzip.compress(b"no tar" * 200), b"x" * 5000], ids=range(4))
def test_an_archive_that_is_none(content, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError):
        list(published.members(str(tmp_path / "a.tar.gz"), {"good"}))


def test_an_idx_file_that_is_a_bomb(tmp_path):
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60_000, 2000, 2000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + bytes(1_000_000)))
    with pytest.raises(DataError, match="announces"):
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
            from tests.data.conftest import picture

            picture(i * 10 + k + 500).save(os.fsdecode(os.path.join(base, name, name[:200] + b"%d.png" % k)))
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


# ------------------------------------------------------------------------------------------------ folders of runs


def test_run_folders_stay_where_runs_are(cli, tmp_path, monkeypatch):
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        for folder in ("../evil", "runs/../../evil", "elsewhere"):
            result = cli("pretrain", *SMOKE, f"{key}={folder}")
            assert result.code == 2, result
            assert "leaves runs/" in result.err
    assert list(tmp_path.iterdir()) == []
    assert cli("pretrain", *SMOKE, "train.steps=1", f"hydra.run.dir={tmp_path / 'full'}").code == 0
    assert (tmp_path / "full" / "status.json").exists()
    assert cli("pretrain", *SMOKE, "train.steps=1", "hydra.run.dir=runs/mine").code == 0
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SSLCLI_RUNS", "../there")
    from sslcli.cli import main

    assert main(["pretrain", *SMOKE, "train.steps=1"]) == 0  # the user says where runs go
    assert len(list((tmp_path / "there").iterdir())) == 2  # a run and `latest`


# ------------------------------------------------------------------------------------------------ network


def test_the_demo_needs_no_network(cli, monkeypatch):
    def refuse(self, address, *args):
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"connection to {address}")
        return original(self, address, *args)

    original = socket.socket.connect

    def no_names(*args, **kw):
        raise AssertionError(f"look-up of {args[0]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    assert cli("pretrain", *SMOKE).code == 0
    result = cli("eval", "probe", "labels=10/class", "seeds=2")
    assert result.code == 0
    assert "probe.top1" in result.out
    with pytest.raises(AssertionError, match="look-up of"):
        socket.create_connection(("example.org", 80))


def test_downloads_are_pinned():
    from sslcli.data import remotes
    from sslcli.data.download import Remote

    found = [v for v in vars(remotes).values() if isinstance(v, Remote)]
    for value in vars(remotes).values():
        found += [v for v in value if isinstance(v, Remote)] if isinstance(value, list) else []
    for _, files, _, _ in remotes.IDX_SETS.values():
        found += files
    assert len(found) >= 15
    assert all(len(r.md5) == 32 and r.size > 0 and r.urls for r in found)
