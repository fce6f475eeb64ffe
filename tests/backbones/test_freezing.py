"""train.freeze: the first layers keep their weights and statistics, in a copy, too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sslcli.backbones.layers import freeze, layers
from sslcli.backbones.resnet import ResNet
from sslcli.backbones.timm_model import TimmModel
from sslcli.backbones.torchvision_model import TorchvisionModel
from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError
from sslcli.optim import build_optimizer

SHAPE = (3, 32, 32)
BACKBONES = {
    "resnet": lambda: ResNet(SHAPE),
    "vit": lambda: ViT(SHAPE, 24, 3, 2),
    "timm": lambda: TimmModel(SHAPE, "tf_efficientnet_lite0"),
    "torchvision": lambda: TorchvisionModel(SHAPE, "mobilenet_v3_small"),
}


@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
def test_frozen_layers_stay_as_they_are(make):
    backbone = make().train()
    row = layers(backbone)
    freeze(backbone, 2)
    backbone = copy.deepcopy(backbone).eval().train()
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone(torch.randn(4, *SHAPE)).square().mean().backward()
    optimizer.step()
    frozen = {name for names in row[:3] for name in names}
    modules = {name.rpartition(".")[0] for name in frozen}
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name in frozen or name.rpartition(".")[0] in modules}
    assert {name.partition(".")[0] for name in changed} & {name.partition(".")[0] for name in row[-1]}
    assert any(name.endswith("running_mean") for name in changed) or not any("running_mean" in name for name in before)


@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
def test_frozen_statistics_normalize_and_stay(make):
    backbone = make().eval()
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        expected = backbone(x)
    freeze(backbone, "statistics")
    backbone = copy.deepcopy(backbone).train()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    before = copy.deepcopy(backbone.state_dict())
    z = backbone(x)
    torch.testing.assert_close(z, expected)
    z.square().mean().backward()
    torch.optim.SGD(backbone.parameters(), lr=0.1).step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name or "num_batches" in name for name in changed)
    norms = [name for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(f"{name}.bias" in changed for name in norms)


def test_freezing_all_layers_is_refused():
    with pytest.raises(RequestError, match="4 layers after the first") as error:
        freeze(ResNet(SHAPE), 4)
    assert error.value.hint == "train.freeze=3, or less"


def test_layer_decay_of_an_optimizer_follows_the_layers():
    method = nn.Module()
    method.backbone, method.head = ResNet(SHAPE), nn.Linear(512, 4)
    freeze(method.backbone, 1)
    node = {"_target_": "torch.optim.SGD", "weight_decay": 0.1, "momentum": 0.9}
    optimizer = build_optimizer(node, method, 0.5, layer_decay=0.5)
    found = {name: group["factor"] for group in optimizer.param_groups for name in group["param_names"]}
    assert found["head.weight"] == 1.0
    assert [found[f"backbone.layer{i}.0.conv1.weight"] for i in (2, 3, 4)] == [0.125, 0.25, 0.5]
    assert "backbone.layer1.0.conv1.weight" not in found
    decay = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert (decay["backbone.layer2.0.bn1.weight"], decay["backbone.layer2.0.conv1.weight"]) == (0.0, 0.1)
