from __future__ import annotations

import pytest
from torch import nn

from sslcli.backbones.bert import BERT
from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.layers import layers
from sslcli.backbones.mlp import MLP
from sslcli.backbones.resnet import ResNet
from sslcli.backbones.tcn import TCN
from sslcli.backbones.vit import ViT
from sslcli.evals.finetuning.layer_decay import groups
from sslcli.nn.values import Tokens


def heads_of(backbone: nn.Module) -> list[set[str]]:
    """The first two words of each layer's names."""
    return [{".".join(name.split(".")[:2]) for name in names if "." in name} for names in layers(backbone)]


def test_layers_contain_every_parameter_once():
    for backbone in (
        ViT((3, 8, 8), 24, 3),
        ResNet((3, 32, 32)),
        ConvNet((1, 8, 8), 8),
        TCN((2, 40), 8),
        MLP((1, 8, 8)),
    ):
        named = [name for layer in layers(backbone) for name in layer]
        assert sorted(named) == sorted(name for name, _ in backbone.named_parameters())


def test_layers_of_a_vit_are_blocks():
    found = layers(ViT((3, 8, 8), 24, 3, positions="learned"))
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(found[0])
    assert [names[0].split(".")[:2] for names in found[1:]] == [["blocks", str(i)] for i in range(3)]
    assert "norm.weight" in found[-1]  # vectors only: it belongs to the last block


def test_layers_of_convolutional_networks_are_stages():
    assert [{name.split(".")[0] for name in names} for names in layers(ResNet((3, 32, 32)))] == [
        {"conv1", "bn1"},
        *({f"layer{i}"} for i in range(1, 5)),
    ]
    assert heads_of(ConvNet((1, 8, 8), 8)) == [{f"features.{i}"} for i in range(5)]
    assert [names[0].split(".")[0] for names in layers(TCN((2, 40), 8, depth=2))] == ["stem", "blocks", "blocks"]
    assert heads_of(MLP((1, 8, 8), depth=2)) == [{"layers.0", "layers.1"}, {"layers.3", "layers.4"}]


def test_layers_of_a_wrapped_network():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = ResNet((3, 32, 32))

    assert [names[0].split(".")[:2] for names in layers(Wrapped())][1:] == [["net", f"layer{i}"] for i in range(1, 5)]


def test_layer_decay_factors_of_known_case():
    backbone, head = ViT((3, 8, 8), 24, 2), nn.Linear(24, 5)
    made = groups(backbone, head, 0.1, 0.5)
    of = {id(p): (g["factor"], g["weight_decay"]) for g in made for p in g["params"]}
    assert of[id(head.weight)] == (1.0, 0.1)
    assert of[id(head.bias)] == (1.0, 0.0)
    assert of[id(backbone.blocks[1].mlp.fc1.weight)] == (0.5, 0.1)
    assert of[id(backbone.norm.weight)] == (0.5, 0.0)
    assert of[id(backbone.blocks[0].mlp.fc1.weight)] == (0.25, 0.1)
    assert of[id(backbone.patch_embed.proj.weight)] == (0.125, 0.1)
    assert of[id(backbone.cls_token)] == (0.125, 0.0)
    assert sum(len(g["params"]) for g in made) == sum(
        p.requires_grad for p in [*backbone.parameters(), *head.parameters()]
    )
    assert {g["factor"] for g in groups(backbone, head, 0.1, 1.0)} == {1.0}


@pytest.mark.parametrize("vocabulary", [50, 50_000])
def test_layers_of_bert_are_blocks_for_any_vocabulary(vocabulary):
    values = Tokens(vocabulary, mask=4, special=(0, 1, 2, 3, 4), start=2, separator=3)
    found = layers(BERT((8,), width=16, depth=3, heads=2, values=values))
    assert {name.split(".")[0] for name in found[0]} == {"embeddings"}
    assert [names[0].split(".")[:3] for names in found[1:]] == [["encoder", "layer", str(i)] for i in range(3)]
