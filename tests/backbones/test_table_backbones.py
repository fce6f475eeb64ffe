"""Backbones of tables: embeddings, missing values, and the tokens of FT-Transformer against the formulas of the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.backbones.ft_transformer import FTTransformer
from sslcli.backbones.mlp import MLP
from sslcli.errors import RequestError
from sslcli.optim import parameter_groups
from tests.rows import VALUES, rows


def network(**options) -> FTTransformer:
    torch.manual_seed(0)
    return FTTransformer((6,), values=VALUES, **{"width": 16, "depth": 2, "heads": 2, **options}).eval()


def paper(net: FTTransformer, x: torch.Tensor) -> torch.Tensor:
    """Sec. 3.3 for one row at a time, with loops: tokens (B, 1 + F, D) after the last norm."""
    out = []
    for row in x.tolist():
        tokens, number, start = [net.cls_token[0]], 0, 0
        for j, n in enumerate(VALUES.categories):
            if n:
                vector = net.tokenizer.categories.weight[start + int(row[j])]
                start += n
            else:
                vector = net.tokenizer.missing[number] if math.isnan(row[j]) else row[j] * net.tokenizer.weight[number]
                number += 1
            tokens.append(vector + net.tokenizer.bias[j])
        h = torch.stack(tokens)
        for i, block in enumerate(net.blocks):
            z = h if i == 0 else F.layer_norm(h, h.shape[-1:], block.norm1.weight, block.norm1.bias)
            q, k, v = (z @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, dim=1)
            heads = []
            for a in range(2):
                s = slice(8 * a, 8 * a + 8)
                heads.append((q[:, s] @ k[:, s].T / math.sqrt(8)).softmax(1) @ v[:, s])
            h = h + torch.cat(heads, 1) @ block.attn.proj.weight.T + block.attn.proj.bias
            z = F.layer_norm(h, h.shape[-1:], block.norm2.weight, block.norm2.bias)
            a, b = (z @ block.fc1.weight.T + block.fc1.bias).chunk(2, dim=1)
            h = h + (a * b.clamp(min=0)) @ block.fc2.weight.T + block.fc2.bias
        out.append(F.layer_norm(h, h.shape[-1:], net.norm.weight, net.norm.bias))
    return torch.stack(out)


def test_ft_transformer_equals_the_paper():
    net, x = network(), rows(8)[0]
    torch.testing.assert_close(net.tokens(x), paper(net, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x), paper(net, x)[:, 0].relu(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(pool="mean")(x), paper(net, x)[:, 1:].mean(1).relu(), rtol=1e-4, atol=1e-5)


def test_default_size_is_that_of_the_paper():
    net = FTTransformer((6,), values=VALUES)
    blocks = sum(p.numel() for p in net.blocks.parameters())
    d = 192
    attention, norms = 4 * d * d + 4 * d, 2 * d
    feed_forward = d * 512 + 512 + 256 * d + d
    assert blocks == 3 * (attention + feed_forward + 2 * norms) - norms


def test_hidden_and_kept_tokens():
    net, x = network(), rows(8)[0]
    hidden = torch.zeros(8, 6, dtype=torch.bool)
    hidden[:, [0, 1]] = True
    mask = torch.randn(16)
    a = net.tokens(x, hidden=hidden, mask_token=mask)
    other = x.clone()
    other[:, 0], other[:, 1] = 9.0, 3.0
    torch.testing.assert_close(a, net.tokens(other, hidden=hidden, mask_token=mask))
    keep = torch.tensor([[2, 4, 5]] * 8)
    b = net.tokens(x, keep)
    assert b.shape == (8, 4, 16)
    torch.testing.assert_close(b, net.tokens(other, keep))
    alone = torch.eye(7, dtype=torch.bool)
    c = net.tokens(x, attend=alone)
    changed = c - net.tokens(other, attend=alone)
    assert (changed[:, [0, 3, 4, 5, 6]] == 0).all()


def test_positions_distinguish_columns_without_order():
    net = network()
    codes = net.token_positions(32)
    assert codes.shape == (7, 32)
    assert (codes[0] == 0).all()
    torch.testing.assert_close(codes[1:].norm(dim=1), torch.full((6,), 4.0))
    similarity = F.normalize(codes[1:], dim=1) @ F.normalize(codes[1:], dim=1).T
    assert (similarity - torch.eye(6)).abs().max() < 0.7
    assert torch.equal(codes, net.token_positions(32))


def test_attention_and_depths():
    net, x = network(), rows(4)[0]
    received = net.attention(x)
    assert received.shape == (4, 2, 6)
    assert (received.sum(-1) <= 1 + 1e-5).all()
    depths = net.depths(x)
    torch.testing.assert_close(net.norm(depths[-1]), net.tokens(x))
    assert torch.equal(net.present(x), VALUES.present(x))


def test_patchify_is_inverse():
    net, x = network(), rows(4)[0]
    torch.testing.assert_close(net.unpatchify(net.patchify(x)), x, equal_nan=True)


def test_dropout_is_active_in_training_only():
    net, x = network(), rows(4)[0]
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("kind", [MLP, network])
def test_missing_differs_from_the_mean(kind):
    torch.manual_seed(0)
    net = (kind((6,), values=VALUES) if kind is MLP else network()).eval()
    if kind is network:  # a missing number is the mean until it is trained
        nn.init.normal_(net.tokenizer.missing)
    x = rows(16)[0]
    mean, missing, other = x.clone(), x.clone(), x.clone()
    mean[:, 0], missing[:, 0], other[:, 3] = 0.0, float("nan"), 3 - x[:, 3]
    with torch.no_grad():
        assert torch.isfinite(net(missing)).all()
        assert not torch.allclose(net(mean), net(missing))
        assert not torch.allclose(net(x), net(other))


def test_missing_vectors_start_at_zero_and_learn():
    net, x = network(), rows(16)[0]
    x[:8, 0], x[:8, 3] = float("nan"), 0.0  # column 3 holds categories
    assert not net.tokenizer.missing.any()
    assert not net.tokenizer.categories.weight[net.tokenizer.categories.starts].any()
    net(x).square().sum().backward()
    assert net.tokenizer.missing.grad[0].abs().sum() > 0
    assert net.tokenizer.categories.weight.grad[net.tokenizer.categories.starts[1]].abs().sum() > 0


def test_tokenizer_has_no_weight_decay():
    groups = {name: g["name"] for g in parameter_groups(network(), 0.1) for name in g["param_names"]}
    assert {g for name, g in groups.items() if name.startswith("tokenizer.")} == {"no_decay"}
    assert groups["blocks.0.fc1.weight"] == "decay"


def test_mlp_equals_one_hot_products():
    torch.manual_seed(0)
    net = MLP((6,), width=8, depth=1, values=VALUES).eval()
    x = rows(10)[0]
    numbers = x[:, [0, 2, 5]]
    one_hot = torch.cat([F.one_hot(x[:, j].long(), n) for j, n in ((1, 4), (3, 3), (4, 6))], dim=1).float()
    blocks = torch.block_diag(*net.embed.categories.weight.split([4, 3, 6]))
    z = torch.cat([numbers.nan_to_num(), numbers.isnan().float(), one_hot @ blocks], dim=1)
    torch.testing.assert_close(net(x), net.layers(z))


def test_other_samples_are_refused():
    with pytest.raises(RequestError, match="rows of a table"):
        FTTransformer((3, 8, 8), values=None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="expected a multiple of"):
        network(width=15)
    with pytest.raises(RequestError, match="attention_dropout"):
        network(attention_dropout=1.0)


def test_backbone_of_images_names_those_of_tables():
    from sslcli.builders import new_backbone
    from tests.rows import dataset

    cfg = {"backbone": {"_target_": "sslcli.backbones.convnet.ConvNet"}}
    with pytest.raises(RequestError, match="ConvNet requires images") as error:
        new_backbone(cfg, dataset(), 0)
    assert "ft_transformer, mlp" in error.value.hint
