"""Backbones of text: BERT against Hugging Face's with the same weights, padding, masks and segments; the mean of embeddings."""

from __future__ import annotations

import functools

import pytest
import torch

from sslcli.backbones import bert
from sslcli.backbones.bag import Bag
from sslcli.backbones.bert import BERT
from sslcli.errors import RequestError
from sslcli.nn import unpadding
from sslcli.optim import parameter_groups
from tests.sequences import VALUES, L, config, copy_head, hugging_face, network, texts, trained, transformers


@pytest.mark.parametrize("pairs", [False, True])
def test_bert_equals_hugging_face(pairs):
    net, x = trained().double(), texts(pairs=pairs)
    model, present = hugging_face(net), x != 0
    theirs = model(x, attention_mask=present.long(), token_type_ids=net.segments(x)).last_hidden_state
    ours = net.tokens(x)
    torch.testing.assert_close(ours[present], theirs[present], rtol=1e-10, atol=1e-11)
    weight = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(2)) * present[..., None]
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for (key, a), b in zip(net.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10, msg=key)


def test_every_depth_equals_hugging_face():
    net, x = trained().double(), texts()
    states = hugging_face(net)(x, attention_mask=(x != 0).long(), output_hidden_states=True).hidden_states[1:]
    for ours, theirs in zip(net.depths(x), states, strict=True):
        torch.testing.assert_close(ours[x != 0], theirs[x != 0], rtol=1e-10, atol=1e-11)


def test_initial_weights_are_those_of_the_paper():
    net = network(width=128, heads=2)
    for key, p in net.named_parameters():
        if p.ndim > 1:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), key
        else:
            assert torch.equal(p, torch.full_like(p, float("LayerNorm.weight" in key))), key
    assert not net.embeddings.word_embeddings.weight[0].any()


def test_segments_begin_after_the_first_separator():
    x = torch.tensor([[2, 7, 3, 8, 9, 3, 0, 0], [2, 7, 8, 9, 3, 0, 0, 0], [2, 7, 8, 9, 7, 8, 9, 7]])
    assert network().segments(x).tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0] * 8, [0] * 8]


@pytest.mark.parametrize("lengths", [(24, 24), (24, 10, 7), (9, 3), (5, 0, 3), (0, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_unpadded_equals_padded(lengths, causal, monkeypatch):
    net = trained(causal=causal).double()
    x = torch.zeros(len(lengths), L, dtype=torch.int64)
    for row, n in zip(x, lengths, strict=True):
        row[:n] = texts((24,))[0, :n]
    fast, attention = (net.tokens(x), net.depths(x), net(x)), net.attention(x)
    monkeypatch.setattr(BERT, "compiled", True)  # computes on all tokens, as on a GPU
    torch.testing.assert_close(fast, (net.tokens(x), net.depths(x), net(x)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(attention, net.attention(x), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(fast[0]).all()
    assert not fast[0][x == 0].any()


def test_padding_in_the_middle_changes_nothing_but_positions():
    net, x = trained().double(), texts((24, 20))
    x[0, 5:9] = 0
    out, model = net.tokens(x), hugging_face(net)
    theirs = model(x, attention_mask=(x != 0).long()).last_hidden_state
    torch.testing.assert_close(out[x != 0], theirs[x != 0], rtol=1e-10, atol=1e-11)


def test_padding_is_not_computed_on():
    net, seen = network(), []
    net.layers[0].intermediate["dense"].register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    x = texts((10, 9, 3))
    net(x)
    assert seen == [24]  # 22 tokens, rounded up
    layout = unpadding.token_layout(x != 0)
    assert layout.length == 16  # 10, rounded up


def test_batches_have_few_different_sizes():
    """Memory of sizes that never occur again is not used again: a process would grow with each step."""
    generator, sizes, most = torch.Generator().manual_seed(0), set(), 0
    for _ in range(300):
        lengths = torch.randint(1, 65, (16,), generator=generator)
        present = torch.arange(64) < lengths[:, None]
        layout = unpadding.token_layout(present)
        rows = layout.rows(present)
        assert rows[: int(present.sum())].all()
        assert torch.equal(layout.restore(torch.ones(len(rows), 1))[:, :, 0], present.float())
        sizes.add(len(rows))
        most = max(most, len(rows) - int(present.sum()))
    assert len(sizes) <= 32
    assert most < 16 * 64 // 32


def test_features_do_not_depend_on_padding():
    net, x = trained().double(), texts((10, 7))
    for other in (x[:, :16], x[:, :10], x[:1]):
        torch.testing.assert_close(net(other), net(x)[: len(other)], rtol=1e-10, atol=1e-11)


def test_mean_and_class_token():
    net, x = trained(), texts((5, 3))
    tokens = net.tokens(x)
    torch.testing.assert_close(net(x)[0], tokens[0, :5].mean(dim=0))
    assert torch.equal(trained(pool="cls")(x), tokens[:, 0])


def test_causal_tokens_ignore_what_follows():
    net, x = trained(causal=True), texts((24, 12))
    other = x.clone()
    other[0, 15:20], other[1, 9] = 11, 11
    a, b = net.tokens(x), net.tokens(other)
    torch.testing.assert_close(a[0, :15], b[0, :15])
    torch.testing.assert_close(a[1, :9], b[1, :9])
    assert not torch.allclose(a[0, 15:], b[0, 15:])


def test_causal_equals_hugging_face_decoder():
    net, x = trained(causal=True).double(), texts((24, 12))
    decoder = config(net, is_decoder=True, use_cache=False)
    model = transformers().BertModel(decoder, add_pooling_layer=False).double().eval()
    model.load_state_dict(net.state_dict())
    theirs = model(x, attention_mask=(x != 0).long()).last_hidden_state
    torch.testing.assert_close(net.tokens(x)[x != 0], theirs[x != 0], rtol=1e-10, atol=1e-11)


def test_attend_limits_attention():
    net, x = trained().double(), texts((24, 12))
    tril = torch.ones(L, L, dtype=torch.bool).tril()
    torch.testing.assert_close(net.tokens(x, attend=tril), trained(causal=True).double().tokens(x))
    alone = torch.eye(L, dtype=torch.bool).expand(2, -1, -1)
    other = x.clone()
    other[0, 5] = 11
    changed = (net.tokens(x, attend=alone) != net.tokens(other, attend=alone)).any(dim=2)
    assert changed.nonzero().tolist() == [[0, 5]]
    assert torch.isfinite(net.tokens(x, attend=torch.zeros(L, L, dtype=torch.bool))).all()


@pytest.mark.parametrize("causal", [False, True])
def test_kept_tokens_keep_their_positions(causal):
    net, x = trained(causal=causal).double(), texts((24, 12))
    keep = torch.tensor([[20, 3, 5], [11, 2, 0]])
    removed = x.clone()
    for row, kept in zip(removed, keep, strict=True):
        hide = torch.ones(L, dtype=torch.bool)
        hide[kept] = False
        row[hide] = 0
    expected = net.tokens(removed).gather(1, keep[:, :, None].expand(-1, -1, 16))
    torch.testing.assert_close(net.tokens(x, keep), expected, rtol=1e-10, atol=1e-11)


def test_kept_padding_is_ignored():
    net, x = trained(), texts((24, 3))
    out = net.tokens(x, torch.tensor([[0, 1], [20, 21]]))
    assert torch.isfinite(out).all()
    assert not out[1].any()


def test_hidden_tokens_are_replaced():
    net, x = trained(), texts((24, 12))
    hidden = torch.zeros(2, L, dtype=torch.bool)
    hidden[:, 4:6] = True
    mask = torch.randn(16)
    other = x.masked_fill(hidden, 12)
    torch.testing.assert_close(net.tokens(x, hidden=hidden, mask_token=mask), net.tokens(other, None, hidden, mask))
    word = net.embeddings.word_embeddings.weight[4]
    torch.testing.assert_close(net.tokens(x, None, hidden, word), net.tokens(VALUES.hide(x, hidden)))


@pytest.mark.parametrize("options", [{}, {"pool": "cls"}, {"causal": True}])
def test_attention_is_that_of_the_last_block(options):
    net, x = trained(**options), texts((24, 12))
    received = net.attention(x)
    assert received.shape == (2, 2, L)
    torch.testing.assert_close(received.sum(dim=2), torch.ones(2, 2))
    assert not received[1, :, 12:].any()


def test_attention_equals_hugging_face():
    net, x = trained().double(), texts((24, 12))
    weights = hugging_face(net)(x, attention_mask=(x != 0).long(), output_attentions=True).attentions[-1]
    expected = torch.stack([weights[0].mean(dim=1), weights[1, :, :12].mean(dim=1)])
    torch.testing.assert_close(net.attention(x), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"causal": True}])
@pytest.mark.parametrize("lengths", [(24, 10, 7), (24, 24), (5, 0, 3)])
@pytest.mark.parametrize("padded", [False, True])
def test_some_tokens_equal_those_of_all(options, lengths, padded, monkeypatch):
    net = trained(**options).double()
    x = texts((24,) * len(lengths)).masked_fill(torch.arange(L) >= torch.tensor(lengths)[:, None], 0)
    static = functools.partial(unpadding.token_layout, static=True)
    monkeypatch.setattr(
        bert, "token_layout", lambda *args: static(*args[:4]) if padded else unpadding.token_layout(*args)
    )
    where = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.3  # padding among them
    some, every = net.tokens_at(x, where), net.tokens(x)[where]
    torch.testing.assert_close(some, every, rtol=1e-10, atol=1e-12)
    weight = torch.randn(some.shape, dtype=some.dtype)
    parameters = [p for k, p in net.named_parameters()]
    both = [torch.autograd.grad((out * weight).sum(), parameters, allow_unused=True) for out in (some, every)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert net.tokens_at(x, torch.zeros_like(where)).shape == (0, 16)


def test_last_block_computes_some_tokens():
    net, x, seen = network(), texts(), []
    net.layers[-1].intermediate["dense"].register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    where = torch.zeros_like(x, dtype=torch.bool)
    where[0, [3, 5]] = where[2, 1] = True
    net.tokens_at(x, where)
    assert seen == [3]


def test_prediction_head_shares_the_embeddings():
    net = network()
    head = net.likelihood().head(16)
    assert {name for name, _ in head.named_parameters()} == {
        "dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "bias",
    }  # fmt: skip
    out = head(net.tokens(texts()))
    assert out.shape == (5, L, 40)
    out.sum().backward()
    assert net.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_prediction_head_equals_hugging_face():
    net, x = trained().double(), texts()
    head = net.likelihood().head(16).double()
    head.bias.data.add_(torch.linspace(-1, 1, 40))
    model = transformers().BertForMaskedLM(config(net)).double().eval()
    model.bert.load_state_dict(net.state_dict())
    copy_head(head, model.cls.predictions)
    logits = model(x, attention_mask=(x != 0).long()).logits
    torch.testing.assert_close(head(net.tokens(x))[x != 0], logits[x != 0], rtol=1e-9, atol=1e-10)


def test_head_of_more_embeddings_than_tokens():
    net = network(vocabulary=64, max_positions=32)
    assert net.likelihood().head(16)(net.tokens(texts())).shape == (5, L, 40)
    assert net.tokens(VALUES.random(2, (32,))).shape == (2, 32, 16)


def test_weight_decay_excludes_norms_and_biases():
    groups = {name: g["name"] for g in parameter_groups(network(), 0.1) for name in g["param_names"]}
    for key, group in groups.items():
        assert (group == "no_decay") == (key.endswith("bias") or "LayerNorm" in key), key


def test_patchify_is_inverse():
    net, x = network(), texts()
    assert net.patchify(x).shape == (5, L, 1)
    assert torch.equal(net.unpatchify(net.patchify(x)), x)
    assert net.token_positions(8).shape == (L, 8)


def test_dropout_in_training_only():
    net, x = network(), texts()
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "multiple of backbone.heads"),
        ({"vocabulary": 39}, "at least the 40 tokens of the vocabulary"),
        ({"max_positions": 23}, "at least the 24 tokens per sample"),
        ({"max_positions": "many"}, "expected auto"),
        ({"dropout": 1.0}, "dropout"),
        ({"pool": "max"}, "expected mean, cls, last"),
        ({"pool": "cls", "causal": True}, "attends to no other"),
        ({"mlp_ratio": 0.0}, "no hidden unit"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(RequestError, match=message):
        network(**options)


def test_longer_samples_are_refused():
    with pytest.raises(RequestError, match="at most 24 tokens"):
        network().tokens(VALUES.random(2, (25,)))


# bag ------------------------------------------------------------------------------------------------------------------


def bag() -> Bag:
    torch.manual_seed(0)
    return Bag((L,), width=8, values=VALUES).eval()


def test_bag_is_the_mean_of_content():
    net, x = bag(), texts((8, 5))
    means = [net.embed.weight[x[0, 1:7]].mean(dim=0), net.embed.weight[x[1, 1:4]].mean(dim=0)]
    torch.testing.assert_close(net(x), net.layers(torch.stack(means)))


def test_bag_ignores_order_and_padding():
    net, x = bag(), texts((8, 5))
    order = torch.cat([torch.randperm(8), torch.arange(8, L)])
    torch.testing.assert_close(net(x), net(x[:, order]))
    torch.testing.assert_close(net(x), net(x[:, :8]))


def test_bag_of_nothing_is_finite():
    net = bag().train()
    x = texts((2, 24))
    x[0] = 0
    out = net(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(net.embed.weight.grad).all()


def test_bag_checks_its_size():
    with pytest.raises(RequestError, match="at least 1"):
        Bag((L,), width=0, values=VALUES)
    with pytest.raises(RequestError, match="sequences of tokens"):
        Bag((3, 8, 8))
