"""A trained run inside a method: it sees samples in the units it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.formats import initial, named_encoders
from sslcli.nn.values import Continuous
from sslcli.training import configuration


class Sum(nn.Module):
    """What it is given, summed over the picture."""

    dim = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


def test_teacher_input_is_renormalized(monkeypatch: pytest.MonkeyPatch):
    ours: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}
    its: dict[str, Any] = {"mean": [0.1, 0.2, 0.6], "std": [1.0, 0.5, 0.25]}
    monkeypatch.setattr(initial, "locate_encoder", Path)
    values = {"kind": "continuous", **its}
    info = {"format": 1, "modality": "image", "input_shape": [3, 5, 5], "values": values}
    monkeypatch.setattr(initial, "load_encoder", lambda path: (Sum(), info))
    empty = ArraySource(torch.empty(0))
    own = Continuous(tuple(ours["mean"]), tuple(ours["std"]))
    dataset = Dataset("ours", "image", (3, 5, 5), empty, None, values=own)
    teacher = named_encoders.load_frozen_encoder("a_run", dataset, "method.teacher")
    torch.manual_seed(0)
    raw = torch.rand(4, 3, 5, 5)

    def normalised(units: dict[str, Any]) -> Tensor:
        mean, std = (torch.tensor(units[k])[:, None, None] for k in ("mean", "std"))
        return (raw - mean) / std

    torch.testing.assert_close(teacher(normalised(ours)), Sum()(normalised(its)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(teacher(normalised(ours)), Sum()(normalised(ours)), atol=1.0)


def test_teacher_latest_is_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(configuration, "find", lambda spec: tmp_path / spec)
    named = str((tmp_path / "latest").resolve())
    inner = {"tau": 0.9, "teacher": "latest"}
    values = {"seed": 1, "method": {"teacher": "latest", "tasks": {"distill": inner}}}
    assert configuration.resolve_latest(values) == {
        "seed": 1,
        "method": {"teacher": named, "tasks": {"distill": {"tau": 0.9, "teacher": named}}},
    }
    assert inner["teacher"] == "latest"
    assert configuration.resolve_latest({"seed": 1}) == {"seed": 1}


def test_copies_replace_the_encoders_of_tasks(tmp_path: Path):
    folder = tmp_path / "encoders" / "clip" / "tower"
    folder.mkdir(parents=True)
    simclr = {"_target_": "sslcli.methods.simclr.SimCLR"}
    clip = {"_target_": "sslcli.methods.clip.CLIP", "tower": "RUN"}
    cfg = {"method": {"_target_": "sslcli.methods.multitask.MultiTask", "tasks": {"clip": clip, "simclr": simclr}}}
    assert named_encoders.with_saved_encoders(cfg, tmp_path) == cfg
    (folder / "encoder.json").write_text("{}")
    tasks = named_encoders.with_saved_encoders(cfg, tmp_path)["method"]["tasks"]
    assert tasks == {"clip": {**clip, "tower": str(folder)}, "simclr": simclr}
