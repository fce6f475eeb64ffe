"""Features that a run from elsewhere brings along."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sslcli.data.public.digits import digits
from sslcli.evals.inputs.feature_cache import FeatureCache, raw_bytes, signature
from sslcli.runtime import folders

WORDS = ["eval", "knn", "device=cpu", "device.threads=1", "evaluator.baselines=false"]


def forge(file: Path) -> None:
    """Features that hold the labels, with the checksum that used to be asked for."""
    tensors, data = load_file(file), digits()
    split = data.train if "-train-" in file.name else data.test
    x, y = torch.zeros_like(tensors["features"]), split.labels[tensors["ids"]]
    x[torch.arange(len(y)), y] = 1
    h = hashlib.sha256(bytes(raw_bytes(x)) + bytes(raw_bytes(tensors["ids"]))).hexdigest()
    stolen = signature(b"0" * 32, file.stem, x, tensors["ids"])
    save_file({"features": x, "ids": tensors["ids"]}, file, metadata={"sha256": h, "signature": stolen})


def notes(run: Path) -> str:
    return " ".join(json.loads((run / "eval" / "knn.json").read_text())["protocol"]["notes"])


def test_features_of_somebody_elses_making_are_not_measured(cli, run):
    first = cli(*WORDS)
    files = list((run / "cache").glob("*.safetensors"))
    assert len(files) == 2
    for file in files:
        forge(file)
    second = cli(*WORDS)
    assert second.out == first.out
    assert notes(run).count("another user's") == 2
    cli(*WORDS)
    assert "another user's" not in notes(run)


def test_features_under_another_name_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    store = FeatureCache(tmp_path / "cache", [])
    x, ids = torch.rand(4, 3), torch.arange(4)
    store.save("train", x, ids)
    assert torch.equal(store.load("train")[0], x)
    (tmp_path / "cache" / "train.safetensors").rename(tmp_path / "cache" / "test.safetensors")
    assert store.load("test") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    store.save("train", x, ids)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert store.load("train") is None


def test_key_is_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = folders.user_key()
    assert key is not None
    assert folders.user_key() == key
    assert os.stat(tmp_path / "sslcli" / folders.KEY).st_mode & 0o777 == 0o600
    (tmp_path / "sslcli" / folders.KEY).write_bytes(b"cut")
    assert len(folders.user_key()) == folders.KEY_BYTES
    monkeypatch.setattr(folders, "cache_folder", lambda: None)
    assert folders.user_key() is None
    store = FeatureCache(tmp_path / "cache", [])
    store.save("train", torch.rand(4, 3), torch.arange(4))
    assert store.load("train") is None
