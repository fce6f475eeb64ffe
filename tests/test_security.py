"""Attacks by configuration, run folders, names and the network, each refused: the exit code, no traceback, nothing done."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslcli.config import instantiate, safe_yaml
from sslcli.errors import RequestError, TrainingError
from sslcli.runs import checkpoint, redact
from sslcli.runs.run import Run
from tests.conftest import SMOKE
from tests.limits import cost

PACKAGE = Path(instantiate.__file__).parent


# ------------------------------------------------------------------------------------------------ safetensors


def _lying(kind: str) -> bytes:
    whole = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return {
        "huge header": struct.pack("<Q", 1 << 62) + whole,
        "header beyond the file": struct.pack("<Q", 5000) + whole,
        "no json": struct.pack("<Q", 8) + b"nonsense",
        "offsets beyond the file": struct.pack("<Q", len(whole)) + whole,
        "shape beyond the bytes": struct.pack("<Q", len(whole)) + whole.replace(b"[2]", b"[9]") + b"\0" * 8,
        "empty": b"",
    }[kind]


LIES = (
    "huge header",
    "header beyond the file",
    "no json",
    "offsets beyond the file",
    "shape beyond the bytes",
    "empty",
)


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
    "sslcli.cli.entry_point.main",
    "sslcli.runs.run.replace_file",
    "sslcli.runs.files.write_file",
    "sslcli.runs.checkpoint.clean",
    "sslcli.config.instantiate.resolve",
    "sslcli.data.sources.arrays.torch.load",
    "sslcli.data.public.stl10.os.system",
    "torch.nn.functional.os",
    "torch.optim.sgd.torch.load",
    "sslcli.data.loading.loader.mp",
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
        instantiate.build(group, {"_target_": target, "path": "x", "command": "touch owned"})


REEXPORTED = [  # the name is in a module of sslcli, the thing itself is not
    "sslcli.data.import_module",
    "sslcli.data.dataset",
    "sslcli.data.sources.image_folder.os",
    "sslcli.data.sources.arrays.np",
    "sslcli.data.sources.image_dataset.build_dataset",
    "sslcli.data.sources.tar.tarfile",
]


@pytest.mark.parametrize("target", REEXPORTED)
def test_a_name_that_points_elsewhere(target):
    with pytest.raises(RequestError, match=r"not one of the allowed|has no|is not allowed"):
        instantiate.resolve("dataset", target)


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "__class__"])
@pytest.mark.parametrize("target", ["sslcli.backbones.mlp.MLP", "sslcli.backbones.timm_model.TimmModel"])
def test_hydras_other_keys_are_refused(target, key):
    with pytest.raises(RequestError, match=key):
        instantiate.check("backbone", {"_target_": target, key: [1]}, given=["input_shape"])


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
    assert result.err.count("error: ") == 1
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
        words = ("pretrain", "experiment=evil", "--config-dir", str(folder), "--dry-run")
        result, took = cost(functools.partial(cli, *words), 5)
        assert result.code == 2, (name, result)
        assert took < 5, name
        assert result.err.count("error: ") == 1, (name, result)
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
            safe_yaml.check_yaml_folder(tmp_path / name)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    safe_yaml.check_yaml_folder(tmp_path / "loop")
    monkeypatch.setattr(safe_yaml, "MAX_ENTRIES", 3)
    with pytest.raises(RequestError, match="more than 3 files"):
        safe_yaml.check_yaml_folder(tmp_path)


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
        assert result.err.count("error: ") == 1, (name, result)
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
        assert result.err.count("error: ") == 1, (name, result)
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


SECRETS = {
    "MY_TOKEN": "hunter22hunter22",
    "DB_PASSWORD": 'pa"ss\\hunter22-x',
    "API_TOKEN": "hunter22-clé-secrète",
    "OPENAI_KEY": "hunter22: {a: b}\n- c",
    "DB_PASS": "'hunter22' # \u2028",
    "GITHUB_PAT": "hunter22hunter22",
    "SSH_PASSPHRASE": "hunter22 hunter22",
    "PGPASSWORD": "hunter22/hunter22+==",
}


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_in_no_file_however_it_is_spelled(name, cli, monkeypatch):
    """Quotes, backslashes, accents and line feeds are escaped in JSON and YAML: values are hidden before that."""
    monkeypatch.setenv(name, SECRETS[name])
    url = f"uri=https://user:{SECRETS[name]}@host/db"
    made = Run.create(Path("runs/a"), {"dataset": {"name": SECRETS[name], "url": url}, "list": [SECRETS[name]]})
    made.event("odd", what=SECRETS[name], deep=[{"x": f"before {SECRETS[name]} after"}])
    made.write_log(f"the data: {SECRETS[name]!r} or {json.dumps(SECRETS[name])} or {SECRETS[name]}")
    made.set_status("failed", error=f"no access with {SECRETS[name]}")
    made.save_eval("knn", {"numbers": {}, "overrides": [f"dataset.name={SECRETS[name]}"], "dataset": SECRETS[name]})
    made.close()
    for path in Path("runs").rglob("*"):
        if path.is_file():
            assert b"hunter22" not in path.read_bytes(), (path, path.read_text())
    assert made.config["dataset"]["name"] == "***"


def test_path_that_contains_a_secret_stays(cli, monkeypatch, tmp_path):
    """POSTGRES_PASSWORD=postgres: the run in which a path holds that word is still evaluated and resumed."""
    rng = np.random.default_rng(0)
    (tmp_path / "postgres").mkdir()
    x = rng.integers(0, 255, (80, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "postgres" / "x.npz", x=x, y=np.arange(80) % 2)
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    data = ["dataset=arrays", "dataset.path=postgres/x.npz", "dataset.name=my-postgres"]
    small = ["backbone=convnet", "backbone.width=4", "train.batch_size=16", "train.steps=4", "train.epochs=null"]
    fast = ["device=cpu", "device.threads=1", "train.eval_every=0", "train.save_every=2"]
    made = cli("pretrain", *data, *small, *fast)
    assert made.code == 0, made.err
    run = Path(made.last)
    cfg = yaml.safe_load((run / "config.yaml").read_text())
    assert (cfg["dataset"]["path"], cfg["dataset"]["name"]) == ("postgres/x.npz", "my-***")
    assert cli("eval", "knn", "evaluator.baselines=false", *fast[:2]).code == 0
    for value in ("postgres", "another-password"):  # the variable may change from one session to the next
        monkeypatch.setenv("POSTGRES_PASSWORD", value)
        status = (run / "status.json").read_text()
        (run / "status.json").write_text(status.replace('"done"', '"interrupted"'))
        resumed = cli("resume", "latest")
        assert resumed.code == 0, resumed.err
        assert "bit-exact" in resumed.err


def test_names_that_are_secret():
    names = (
        "api_key OPENAI_KEY hf_token DB_PASS GITHUB_PAT PGPASSWORD SSH_PASSPHRASE passwd mysql_pwd client-secret tokens"
    )
    plain = "tokenizer keys key path num_patches compass pattern monkey bypass secretary patience"
    assert redact.redacted(dict.fromkeys(names.split(), "x")) == dict.fromkeys(names.split(), "***")
    assert redact.redacted(dict.fromkeys(plain.split(), "x")) == dict.fromkeys(plain.split(), "x")
    node = {
        "logger": {"api_key": "a", "tokenizer": "byte", "hf_token": "b", "url": "c"},
        "keys": ["d"],
        "password": "e",
    }
    assert redact.redacted(node) == {
        "logger": {"api_key": "***", "tokenizer": "byte", "hf_token": "***", "url": "c"},
        "keys": ["d"],
        "password": "***",
    }
    assert redact.redacted_overrides(["pretrain", "logger.api_key=abc", "x=y"]) == [
        "pretrain",
        "logger.api_key=***",
        "x=y",
    ]


# ------------------------------------------------------------------------------------------------ folders of runs


def test_run_folders_stay_where_runs_are(cli, tmp_path, monkeypatch):
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        for folder in ("../evil", "runs/../../evil", "elsewhere"):
            result = cli("pretrain", *SMOKE, f"{key}={folder}")
            assert result.code == 2, result
            assert "is outside runs/" in result.err
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
    from sslcli.data.public import urls
    from sslcli.data.public.download import RemoteFile

    found = [v for v in vars(urls).values() if isinstance(v, RemoteFile)]
    for value in vars(urls).values():
        found += [v for v in value if isinstance(v, RemoteFile)] if isinstance(value, list) else []
    for _, files, _, _ in urls.IDX_SETS.values():
        found += files
    assert len(found) >= 15
    assert all(len(r.md5) == 32 and r.size > 0 and r.urls for r in found)
