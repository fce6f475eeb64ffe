"""Runs whose encoder.json has format 1 (mean and std, no preprocessor): an earlier version trained those in format_1/ for 4
steps and saved a checkpoint after 2.

1. Such a run loads, evaluates and exports as before.
2. Resumed from its checkpoint it ends with the weights that the earlier version had after 4 steps, and has format 2.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sslcli
from sslcli.data import preprocess
from sslcli.errors import TrainingError

FIXTURES = Path(__file__).parent / "format_1"
SHAPES = {"image": [1, 8, 8], "series": [2, 12]}


@pytest.fixture(params=["image", "series"])
def old(request, tmp_path, monkeypatch) -> Path:
    """A copy of a run, in the working folder with its data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURES / request.param, tmp_path / "runs" / request.param)
    shutil.copy(FIXTURES / "series.npz", tmp_path)
    return tmp_path / "runs" / request.param


def samples(kind: str) -> tuple[np.ndarray, torch.Tensor]:
    """Samples, and their values before normalization."""
    rng = np.random.default_rng(0)
    if kind == "image":
        x = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8)
        return x, torch.tensor(x)[:, None] / 255
    x = rng.normal(size=(5, 2, 12)).astype(np.float32)
    return x, torch.tensor(x)


def test_format_1_is_loaded(old):
    info = json.loads((old / "encoder.json").read_text())
    assert {"mean", "std"} <= info.keys()
    encoder = sslcli.load(old)
    x, plain = samples(old.name)
    mean, std = (torch.tensor(info[k]).view(-1, *[1] * (plain.dim() - 2)) for k in ("mean", "std"))
    assert torch.allclose(encoder.transform(x), (plain - mean) / std, atol=1e-6)
    assert encoder.info["values"] == {"kind": "continuous", "mean": info["mean"], "std": info["std"]}
    assert encoder.embed(x).shape == (5, encoder.dim)


def test_format_1_is_resumed_and_becomes_format_2(cli, old):
    known = load_file(old / "encoder.safetensors")
    x, _ = samples(old.name)
    before = sslcli.load(old).embed(x)
    result = cli("resume", str(old))
    assert result.code == 0, result.err
    assert "resuming at step 2" in result.err
    resumed = load_file(old / "encoder.safetensors")
    assert known.keys() == resumed.keys()
    assert all(torch.allclose(known[k], resumed[k], rtol=1e-5, atol=1e-7) for k in known)  # equal on one machine
    info = json.loads((old / "encoder.json").read_text())
    assert (info["format"], info["input_shape"]) == (2, SHAPES[old.name])
    assert not {"mean", "std", "range"} & info.keys()
    own = preprocess.load(old, info["preprocessor"]["sha256"])
    assert own.kind == info["preprocessor"]["kind"] == old.name
    state = json.loads((old / "checkpoints" / "step-0000000004" / "state.json").read_text())
    assert state["preprocessor"] == own.sha256 == json.loads((old / "status.json").read_text())["data"]["preprocessor"]
    assert torch.allclose(sslcli.load(old).embed(x), before, rtol=1e-4, atol=1e-6)
    assert cli("resume", str(old), "train.steps=5").code == 0


def test_format_1_is_evaluated_and_exported(cli, old):
    status = json.loads((old / "status.json").read_text())
    (old / "status.json").write_text(json.dumps({**status, "status": "done", "step": 4}))
    result = cli("eval", "knn", f"run={old}", "evaluator.k=3", "device=cpu", "device.threads=1")
    assert result.code == 0, result.err
    exported = cli("export", str(old), "out=encoder")
    assert exported.code == 0, exported.err
    info = json.loads(Path("encoder/encoder.json").read_text())
    assert info["format"] == 2
    assert not {"mean", "std", "range"} & info.keys()
    x, _ = samples(old.name)
    assert torch.equal(sslcli.load("encoder").embed(x), sslcli.load(old).embed(x))


def test_missing_or_changed_preprocessor_is_an_error(cli, old):
    assert cli("resume", str(old)).code == 0
    main = old / "preprocessor" / "preprocessor.json"
    content = main.read_text()
    main.write_text(content.replace("2", "1", 1))
    for words in (("resume", str(old), "train.steps=6"), ("eval", "knn", f"run={old}", "device=cpu")):
        refused = cli(*words)
        assert (refused.code, "does not match the SHA-256" in refused.err) == (4, True), refused.err
    shutil.rmtree(main.parent)
    with pytest.raises(TrainingError, match=r"has no preprocessor\.json"):
        sslcli.load(old)
    refused = cli("resume", str(old), "train.steps=6")
    assert (refused.code, "copy the whole folder again" in refused.err) == (4, True), refused.err


def test_newer_format_is_refused(cli, old):
    info = json.loads((old / "encoder.json").read_text())
    (old / "encoder.json").write_text(json.dumps({**info, "format": 3}))
    refused = cli("eval", "knn", f"run={old}")
    assert (refused.code, "upgrade sslcli" in refused.err) == (2, True), refused.err
