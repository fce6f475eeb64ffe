"""`init=FILE`: weights of other programs, found by their names, said, and refused where they are another network's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sslcli.backbones.resnet import ResNet
from sslcli.backbones.weights import matching, reading
from sslcli.errors import RequestError
from tests.conftest import SMOKE

SHAPE = (3, 96, 96)


def published(seed: int = 1) -> dict[str, Tensor]:
    """A ResNet-18 with torchvision's names, and its head."""
    torch.manual_seed(seed)
    weights = {k: v.clone() for k, v in ResNet(SHAPE).state_dict().items()}
    return {**weights, "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


WEIGHTS = published()
OTHER = published(2)


def load(backbone: ResNet, path: Path) -> str:
    return matching.load_into(backbone, reading.read(str(path)), str(path))


def under(prefix: str, weights: dict[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {f"{prefix}{k}": v for k, v in weights.items()}


FILES = {
    "torchvision": WEIGHTS,
    "moco": {"epoch": 3, "state_dict": under("module.encoder_k.", OTHER) | under("module.encoder_q.")},
    "dino": {"student": under("module.backbone.", OTHER), "teacher": under("backbone."), "args": {"lr": 0.1}},
    "lightning": {"state_dict": under("model.backbone.") | {"model.head.weight": torch.zeros(3)}, "epoch": 1},
    "byol": under("target_network.", OTHER) | under("online_network."),
    "compiled": under("_orig_mod."),
    "half": {k: v.half() if v.is_floating_point() else v for k, v in WEIGHTS.items()},
    "old batch norms": {k: v for k, v in WEIGHTS.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_published_weights_load(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    backbone = ResNet(SHAPE)
    said = load(backbone, tmp_path / "w.pth")
    for key, value in backbone.state_dict().items():
        if "num_batches" not in key:
            assert torch.allclose(value, WEIGHTS[key], atol=1e-3), key
    assert "100.0% of the backbone's parameters" in said


def test_head_is_ignored_and_reported(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    said = load(ResNet(SHAPE), tmp_path / "w.safetensors")
    assert "unexpected, ignored: fc.weight, fc.bias" in said or "unexpected, ignored: fc.bias, fc.weight" in said


def test_different_stem_is_reported(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    small = ResNet((3, 32, 32))
    first = small.conv1.weight.clone()
    said = load(small, tmp_path / "w.pt")
    assert "missing, randomly initialized: conv1.weight (64x3x7x7 in the file, 64x3x3x3 here)" in said
    assert torch.equal(small.conv1.weight, first)


def test_other_network_is_rejected_with_suggestion(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    backbone = ResNet(SHAPE, depth=34)
    before = backbone.conv1.weight.clone()
    with pytest.raises(RequestError, match=r"matches \d+% of the parameters") as error:
        load(backbone, tmp_path / "w.pth")
    assert "layer1.2.conv1.weight" in error.value.message
    assert error.value.hint == "it matches backbone=resnet18"
    assert torch.equal(backbone.conv1.weight, before)
    torch.save({"a": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=r"matches 0%.*in the file: a"):
        load(backbone, tmp_path / "w.pth")


def test_init_file_from_the_command_line(cli, tmp_path):
    torch.manual_seed(3)
    from sslcli.backbones.convnet import ConvNet

    torch.save({"model": under("net.", ConvNet((1, 8, 8), width=8).state_dict())}, tmp_path / "own.pth")
    done = cli("pretrain", *SMOKE, "init=own.pth", "train.steps=1", "train.epochs=null")
    assert done.code == 0, done.err
    assert "100.0% of the backbone's parameters" in done.err
    assert str(tmp_path / "own.pth") in (Path(done.last) / "config.yaml").read_text()
    assert json.loads((Path(done.last) / "status.json").read_text())["status"] == "done"
    wrong = cli("pretrain", *SMOKE, "init=nope.pth")
    assert wrong.code == 2
    assert "no such file" in wrong.err


@pytest.mark.parametrize("prefix", ["", "module.encoder_q."])
def test_stem_follows_file(prefix, cli, tmp_path, monkeypatch):
    """Pictures of 32 pixels would have the small one."""
    torch.save(under(prefix), tmp_path / "w.pth")
    words = ["backbone=resnet18", "init=w.pth", "train.steps=1", "train.epochs=null", "dataset.image_size=16"]
    smoke = [w for w in SMOKE if not w.startswith("backbone.")]
    done = cli("pretrain", *smoke, *words)
    assert done.code == 0, done.err
    assert "stem: imagenet" in (Path(done.last) / "config.yaml").read_text()
    assert json.loads((Path(done.last) / "encoder.json").read_text())["backbone"]["stem"] == "imagenet"
