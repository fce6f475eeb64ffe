"""train.freeze, train.layer_decay, train.lora and train.epochs=0 of runs: what is exported, and that a resumed run has the same
bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMOKE, killed_when_saved

VIT = [word for word in SMOKE if not word.startswith("backbone.")]
VIT += ["backbone=vit_micro", "backbone.width=24", "backbone.depth=3", "train.save_every=1", "method=byol"]
LORA = [*VIT, "train.freeze=1", "train.layer_decay=0.5", "train.lora=2", "optimizer=adamw", "optimizer.lr=1e-2"]


def test_lora_resumes_bit_exact_and_is_merged(cli, tmp_path):
    done = cli("pretrain", *LORA)
    assert done.code == 0, done.err
    whole = load_file(Path(done.last) / "encoder.safetensors")
    assert not any("lora" in name or "parametrizations" in name for name in whole)
    with killed_when_saved(2):
        cli("pretrain", *LORA)
    resumed = cli("resume", "latest")
    assert resumed.code == 0, resumed.err
    assert "bit-exact" in resumed.err
    again = load_file(sorted(Path("runs").glob("2*"))[-1] / "encoder.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in again.items())
    start = cli("pretrain", *VIT, "train.steps=1", f"init={done.last}", "train.freeze=1", "train.epochs=null")
    assert start.code == 0, start.err
    after = load_file(Path(start.last) / "encoder.safetensors")
    same = {name for name, value in after.items() if torch.equal(value, whole[name])}
    assert {name for name in whole if name.startswith(("patch_embed", "blocks.0."))} <= same
    assert "blocks.2.mlp.fc1.weight" not in same
    given = cli("eval", "knn", f"run={start.last}")
    assert given.code == 0, given.err
    assert "given.top1" in given.out
    export = cli("export", done.last, "checkpoint=4", "out=encoder")
    assert export.code == 0, export.err
    exported = load_file(tmp_path / "encoder" / "encoder.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in exported.items())


def test_zero_epochs_keep_given_weights(cli):
    """A run of public weights that can be evaluated, searched and exported like any other."""
    trained = cli("pretrain", *VIT, "train.steps=1", "train.epochs=null")
    kept = cli("pretrain", *VIT, f"init={trained.last}", "train.steps=0")
    assert kept.code == 0, kept.err
    assert "0 steps: the run keeps the weights of init as they are" in kept.err
    before, after = (load_file(Path(folder) / "encoder.safetensors") for folder in (trained.last, kept.last))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    resumed = cli("resume", kept.last)
    assert (resumed.code, "nothing to resume" in resumed.err) == (0, True), resumed.err
    (Path(kept.last) / "encoder.safetensors").unlink()
    again = cli("resume", kept.last)
    assert again.code == 0, again.err
    assert (Path(kept.last) / "encoder.safetensors").is_file()
    found = cli("eval", "knn", f"run={kept.last}", "--json")
    assert found.code == 0, found.err
    assert "given.top1" not in found.out
    assert "no baseline of given weights: they are those of the run" in found.out
    assert cli("runs", "report", kept.last).code == 0
    about = (Path(kept.last) / "encoder.json").read_text()
    Path(trained.last).rename("moved")
    (Path(kept.last) / "encoder.safetensors").unlink()
    alone = cli("resume", kept.last)
    assert alone.code == 0, alone.err
    assert "is gone: the weights are those of the checkpoint" in alone.err
    assert (Path(kept.last) / "encoder.json").read_text() == about
    (Path(kept.last) / "encoder.safetensors").unlink()
    shutil.rmtree(Path(kept.last) / "checkpoints")
    assert "there is no run" in cli("resume", kept.last).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.steps=0"], "training for 0 steps leaves random weights"),
        (["train.lora=2"], "train.lora=2 requires linear layers"),
        (["train.freeze=9"], "train.freeze=9: ConvNet has"),
        (["train.layer_decay=0"], "train.layer_decay=0"),
        (["train.freeze=-1"], "train.freeze: expected"),
        (["train.lora=2", "train.strategy=fsdp"], "does not support train.strategy=fsdp"),
        (["experiment=adapt"], "experiment=adapt continues pretrained weights"),
    ],
)
def test_wrong_requests_of_partial_training(words, message, cli):
    smoke = [word for word in SMOKE if not (word.startswith("experiment") and "experiment=adapt" in words)]
    refused = cli("pretrain", *smoke, *words)
    assert refused.code == 2
    assert message in refused.err
    assert not Path("runs").exists()
