"""LoRA against the formula of the paper: the same function at first, W + B A after training, and the same network when merged."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sslcli.backbones.vit import ViT
from sslcli.nn.lora import add_lora, merge_lora, merged

SHAPE = (3, 16, 16)


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(SHAPE, width=24, depth=2, heads=2, patch=8).eval()


def trained(backbone: nn.Module, x: torch.Tensor) -> nn.Module:
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # B begins at zero, so that A has no gradient in the first step
        optimizer.zero_grad()
        backbone(x).square().mean().backward()
        optimizer.step()
    return backbone


def test_lora_changes_only_low_rank_updates():
    backbone, x = vit(), torch.randn(4, *SHAPE)
    before, expected = copy.deepcopy(backbone.state_dict()), backbone(x)
    assert add_lora(backbone, rank=3) == 8  # qkv, proj, fc1 and fc2 of two blocks
    assert torch.equal(backbone(x), expected)
    trained(backbone, x)
    state = merged(backbone.state_dict())
    assert state.keys() == before.keys()
    changed = {name: state[name] - value for name, value in before.items() if not torch.equal(state[name], value)}
    assert {name.rpartition(".")[0].partition(".")[2][2:] for name in changed} == {
        "attn.qkv",
        "attn.proj",
        "mlp.fc1",
        "mlp.fc2",
    }
    assert all(torch.linalg.matrix_rank(update, rtol=1e-4) <= 3 for update in changed.values())


def test_merged_network_has_the_same_features():
    backbone, x = vit(), torch.randn(4, *SHAPE)
    add_lora(backbone, rank=2)
    trained(backbone, x)
    plain = vit()
    plain.load_state_dict(merged(backbone.state_dict()))
    assert torch.equal(plain(x), backbone(x))
    teacher = copy.deepcopy(backbone)
    merge_lora(backbone)
    assert torch.equal(plain(x), backbone(x))
    assert torch.equal(plain(x), teacher(x))  # torch gives a copy the same class
    merge_lora(teacher)
    assert list(backbone.state_dict()) == list(plain.state_dict())


def test_lora_covers_packed_attention():
    """`nn.MultiheadAttention` passes its weights to a function, without calling a linear layer."""
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), torch.randn(2, 3, 8)
    assert add_lora(layer, rank=2) == 4
    layer(x).square().mean().backward()
    factors = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    assert len(factors) == 8
    assert all(p.grad is not None and bool(p.grad.any()) for name, p in factors.items() if name.endswith("lora_b"))


def test_frozen_layers_get_no_update():
    backbone = vit()
    backbone.blocks[0].requires_grad_(False)
    assert add_lora(backbone, rank=2) == 4
    assert not any("lora" in name for name, _ in backbone.blocks[0].named_parameters())
