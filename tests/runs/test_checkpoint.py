"""Checkpoints are whole or absent, checked when read, and fall back to the newest that verifies."""

from __future__ import annotations

import json

import pytest
import torch

from sslcli.errors import TrainingError
from sslcli.runs import checkpoint
from sslcli.training.loop.optimizer_state import optimizer_tensors, parameter_names, restore_optimizer


def tensors(value: float) -> dict:
    return {
        "model": {"w": torch.full((300,), value), "n": torch.tensor(3)},
        "ema": {},
        "optimizer": {"w/m": torch.full((300,), -value)},
    }


def test_checkpoint_round_trip_and_retention(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path, step, tensors(step), {"seconds": step / 2}, keep=2)
    assert [p.name for p in checkpoint.existing(tmp_path)] == ["step-0000000004", "step-0000000003"]
    found, state = checkpoint.load_newest(tmp_path)
    assert state == {"step": 4, "seconds": 2.0}
    assert torch.equal(found["model"]["w"], torch.full((300,), 4.0))
    assert "ema" not in found  # nothing to keep, no file
    assert json.loads((tmp_path / "last.json").read_text())["step"] == 4
    assert not list(tmp_path.glob(".*"))


def test_load_newest_empty_folder(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None


def test_optimizer_state_parameter_order():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    names = parameter_names(model)
    slots, numbers = optimizer_tensors(optimizer, names)
    again = torch.optim.AdamW(list(model.parameters())[::-1])
    restore_optimizer(again, names, slots, numbers)
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            assert torch.equal(again.state[parameter][slot], value)
            assert again.state[parameter][slot].stride() == value.stride()


def test_load_strictly_lists_mismatches():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(
        TrainingError, match=r"1 missing: bias.*1 unexpected: other.*1 of another shape: weight \(2, 4\) for \(2, 3\)"
    ):
        checkpoint.load_strictly(model, {"weight": torch.zeros(2, 4), "other": torch.zeros(1)}, "it")
