"""Methods of text against Hugging Face's models with the same weights, or the papers' formulas with loops: loss and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.bag import Bag
from sslcli.methods.autoregressive import Autoregressive
from sslcli.methods.base import Batch, Method
from sslcli.methods.bert import BERT
from sslcli.methods.electra import ELECTRA, discriminator_terms
from sslcli.methods.mlm import MLM
from sslcli.methods.nsp import NSP
from sslcli.methods.simcse import SimCSE
from sslcli.methods.tsdae import TSDAE
from sslcli.nn.sentence_pairs import swap_second_segments
from sslcli.nn.text_decoder import delete_tokens
from sslcli.rng import Draw
from tests.methods.oracles import cos
from tests.sequences import VALUES, L, config, copy_head, hugging_face, network, shake, texts, transformers

LENGTHS = (24, 10, 7, 17, 3, 12)


def batch(kind: str = "weak", x: Tensor | None = None, epoch: int = 0) -> Batch:
    x = texts(LENGTHS, pairs=kind == "pair") if x is None else x
    return Batch([x], [kind], Draw(0, epoch, torch.arange(len(x))))


def double(method: Method) -> Any:
    """In double precision, with weights far from those at the start, without dropout."""
    shake(method)
    return method.double().eval()


def gradients(loss: Tensor, *modules: nn.Module) -> dict[str, Tensor]:
    """The gradients of all parameters of the modules, by name."""
    for module in modules:
        module.zero_grad()
    loss.backward()
    return {name: p.grad for module in modules for name, p in module.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], names: dict[str, str]) -> None:
    """names: ours -> theirs; gradients that have no name in it have the same."""
    assert len(ours) > 10
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[names.get(name, name)], rtol=1e-7, atol=1e-9, msg=name)


HEAD = {"dense.weight": "transform.dense.weight", "dense.bias": "transform.dense.bias"} | {
    f"LayerNorm.{p}": f"transform.LayerNorm.{p}" for p in ("weight", "bias")
}


# mlm -----------------------------------------------------------------------------------------------------------------


def test_mlm_matches_transformers():
    method, data = double(MLM(network())), batch()
    net, (x,) = method.backbone, data.views
    model = transformers().BertForMaskedLM(config(net)).double().eval()
    model.bert.load_state_dict(net.state_dict())
    copy_head(method.head, model.cls.predictions)
    corrupted, where = method.masking(x, data.uniform)
    labels = x.masked_fill(~where, -100)
    theirs = model(corrupted, attention_mask=(x != 0).long(), labels=labels).loss
    out = method(data)
    torch.testing.assert_close(out["loss"], theirs, rtol=1e-10, atol=0)
    assert out["perplexity"].item() == pytest.approx(math.exp(theirs.item()))
    ours, expected = gradients(out["loss"], net, method.head), gradients(theirs, model.bert, model.cls.predictions)
    assert_same(ours, expected, HEAD)


def test_mlm_logits_are_those_of_hidden_positions():
    method, (x,) = double(MLM(network())), batch().views
    where = method.masking.targets(x, batch().uniform("mask", L))
    every = method.head(method.backbone.tokens(x))
    torch.testing.assert_close(method.token_logits(x, where), every[where])
    seen = []
    method.head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    method(batch())
    assert 0 < int(where.sum()) <= 32
    assert seen == [32]  # rounded up


def test_mlm_reconstructs_hidden_tokens():
    method, data = double(MLM(network(), 0.3)), batch()
    result = method.reconstruct(data)
    hidden = VALUES.hide(data.views[0], result.hidden)
    assert torch.equal(result.columns()["visible"], hidden)
    expected = method.head(method.backbone.tokens(hidden)).argmax(dim=2)
    assert torch.equal(result.predicted[result.hidden], expected[result.hidden])
    assert torch.equal(result.predicted[~result.hidden], data.views[0][~result.hidden])


def test_mlm_learns_a_rule():
    """The second token tells the third: half of the hidden tokens can be predicted."""
    torch.manual_seed(0)
    method = MLM(network(width=32, dropout=0.0), 0.3).train()
    optimizer = torch.optim.AdamW(method.parameters(), 5e-3)
    first = 5 + torch.arange(30)
    x = torch.stack([torch.full_like(first, 2), first, 5 + (7 * first) % 30, torch.full_like(first, 3)], dim=1)
    x = F.pad(x, (0, L - 4))
    for step in range(150):
        loss = method(batch(x=x, epoch=step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method.eval()
    where = torch.zeros_like(x, dtype=torch.bool)
    where[:, 2] = True
    logits = method.token_logits(VALUES.hide(x, where), where)
    assert (logits.argmax(dim=1) == x[:, 2]).float().mean() > 0.9


# nsp, bert -----------------------------------------------------------------------------------------------------------


def load_pairs_head(head: nn.Module, pooler: Any, classifier: Any) -> None:
    pooler.dense.load_state_dict(head.pooler.state_dict())
    classifier.load_state_dict(head.classifier.state_dict())


def swapped(data: Batch):
    return swap_second_segments(data.views[0], VALUES, data.uniform("swap") < 0.5, data.uniform("partner"))


POOLER = {f"pooler.{p}": f"pooler.dense.{p}" for p in ("weight", "bias")} | {
    f"classifier.{p}": f"seq_relationship.{p}" for p in ("weight", "bias")
}


def test_nsp_matches_transformers():
    method, data = double(NSP(network())), batch("pair")
    model = transformers().BertForNextSentencePrediction(config(method.backbone)).double().eval()
    model.bert.load_state_dict(method.backbone.state_dict(), strict=False)
    load_pairs_head(method.head, model.bert.pooler, model.cls.seq_relationship)
    pairs = swapped(data)
    labels = pairs.swapped.masked_fill(~pairs.valid, -100)  # 1: a random sentence
    assert set(labels.tolist()) == {-100, 0, 1}
    segments = method.backbone.segments(pairs.x)
    theirs = model(pairs.x, attention_mask=(pairs.x != 0).long(), token_type_ids=segments, labels=labels).loss
    out = method(data)
    torch.testing.assert_close(out["loss"], theirs, rtol=1e-10, atol=0)
    ours = gradients(out["loss"], method.backbone, method.head)
    assert_same(ours, gradients(theirs, model.bert, model.cls), POOLER)


def test_nsp_learns_a_rule():
    """Both segments are of one of five topics: a permuted pair is often of two."""
    torch.manual_seed(0)
    method, generator = NSP(network(width=32, dropout=0.0)).train(), torch.Generator().manual_seed(0)
    words = 5 + 7 * (torch.arange(64) % 5)[:, None] + torch.randint(0, 7, (64, 8), generator=generator)
    start, end = torch.full((64, 1), 2), torch.full((64, 1), 3)
    x = F.pad(torch.cat([start, words[:, :4], end, words[:, 4:], end], dim=1), (0, L - 11))
    optimizer, right = torch.optim.AdamW(method.parameters(), 3e-3), []
    for step in range(200):
        out = method(batch("pair", x, step))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        right.append(out["nsp_acc"].item())
    assert sum(right[-50:]) / 50 > 0.65


def test_bert_matches_transformers():
    """BertForPreTraining: one pass, the sum of both losses."""
    method, data = double(BERT(network())), batch("pair")
    model = transformers().BertForPreTraining(config(method.backbone)).double().eval()
    model.bert.load_state_dict(method.backbone.state_dict(), strict=False)
    copy_head(method.mlm_head, model.cls.predictions)
    load_pairs_head(method.nsp_head, model.bert.pooler, model.cls.seq_relationship)
    pairs = swapped(data)
    corrupted, where = method.masking(pairs.x, data.uniform)
    theirs = model(
        corrupted,
        attention_mask=(pairs.x != 0).long(),
        token_type_ids=method.backbone.segments(pairs.x),
        labels=pairs.x.masked_fill(~where, -100),
        next_sentence_label=pairs.swapped.masked_fill(~pairs.valid, -100),
    ).loss
    out = method(data)
    torch.testing.assert_close(out["loss"], theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(out["mlm"] + out["nsp"], theirs.detach(), rtol=1e-10, atol=0)
    ours = gradients(out["loss"], method.backbone, method.mlm_head, method.nsp_head)
    head = {name: f"predictions.{other}" for name, other in {**HEAD, "bias": "bias"}.items()}
    assert_same(ours, gradients(theirs, model.bert, model.cls), POOLER | head)


# electra -------------------------------------------------------------------------------------------------------------


def electra_models(method: ELECTRA) -> tuple[Any, Any]:
    """Hugging Face's generator and discriminator with the weights of the method."""
    net, kind = method.backbone, transformers()
    sizes = {
        "vocab_size": 40,
        "embedding_size": net.dim,
        "num_hidden_layers": net.sizes.depth,
        "max_position_embeddings": L,
    }
    exact = {"attn_implementation": "eager", "tie_word_embeddings": True}
    layer = method.generator.layers[0]
    small = kind.ElectraConfig(
        hidden_size=method.generator.width,
        num_attention_heads=layer.attention["self"].heads,
        intermediate_size=layer.intermediate["dense"].out_features,
        **sizes,
        **exact,
    )
    large = kind.ElectraConfig(
        hidden_size=net.dim, num_attention_heads=4, intermediate_size=4 * net.dim, **sizes, **exact
    )
    generator = kind.ElectraForMaskedLM(small).double().eval()
    discriminator = kind.ElectraForPreTraining(large).double().eval()
    discriminator.electra.load_state_dict(net.state_dict())
    generator.electra.embeddings.load_state_dict(net.embeddings.state_dict())
    generator.electra.embeddings_project.load_state_dict(method.generator.project.state_dict())
    generator.electra.encoder.layer.load_state_dict(method.generator.layers.state_dict())
    generator.generator_predictions.load_state_dict(
        {k: v for k, v in method.generator_head.state_dict().items() if k != "bias"}
    )
    generator.generator_lm_head.bias.data.copy_(method.generator_head.bias)
    discriminator.discriminator_predictions.dense.load_state_dict(method.head[0].state_dict())
    discriminator.discriminator_predictions.dense_prediction.load_state_dict(method.head[2].state_dict())
    return generator, discriminator


def test_electra_matches_transformers():
    method, data = double(ELECTRA(network(width=32, heads=4), generator_ratio=0.5)), batch()
    generator, discriminator = electra_models(method)
    (x,) = data.views
    masked, where = method.masking(x, data.uniform)
    assert (masked[where] == 4).all()
    present = (x != 0).long()
    first = generator(masked, attention_mask=present, labels=x.masked_fill(~where, -100))
    u = data.uniform("sample", L)[where]
    replaced = method.replace(x, where, first.logits[where], u)
    assert (replaced != x).any()
    second = discriminator(replaced, attention_mask=present, labels=(replaced != x).long())
    labels, tokens = (replaced != x)[x != 0].double(), second.logits[x != 0]
    theirs = first.loss + 50 * F.binary_cross_entropy_with_logits(tokens, labels)
    torch.testing.assert_close(
        first.loss + 50 * second.loss, theirs, rtol=1e-6, atol=0
    )  # theirs is in single precision
    out = method(data)
    torch.testing.assert_close(out["loss"], theirs, rtol=1e-9, atol=0)
    torch.testing.assert_close(out["generator"], first.loss.detach(), rtol=1e-9, atol=0)
    ours = gradients(out["loss"], method.backbone, method.generator)
    expected = gradients(theirs, discriminator.electra)
    shared = {k: p.grad for k, p in generator.electra.embeddings.named_parameters(prefix="embeddings")}
    expected |= {k: expected[k] + v for k, v in shared.items()}
    expected |= {f"layers.{k}": p.grad for k, p in generator.electra.encoder.layer.named_parameters()}
    expected |= {f"project.{k}": p.grad for k, p in generator.electra.embeddings_project.named_parameters()}
    assert_same(ours, expected, {})


def test_electra_generator_is_a_quarter_as_wide():
    method = ELECTRA(network(width=64, heads=4))
    attention = method.generator.layers[0].attention["self"]
    assert (method.generator.width, attention.heads, len(method.generator.layers)) == (16, 1, 2)
    assert "16" in method.describe()["generator"]
    assert method.eval_backbone is method.backbone
    assert not [k for k in method.state_dict() if "word_embeddings" in k and not k.startswith("backbone.")]


def test_electra_has_no_gradient_through_samples():
    """The discriminator's loss does not reach the layers of the generator."""
    method, data = double(ELECTRA(network())), batch()
    (x,) = data.views
    masked, where = method.masking(x, data.uniform)
    replaced = method.replace(x, where, method.token_logits(masked, where), data.uniform("sample", L)[where])
    logits = method.head(method.backbone.tokens(replaced))[:, :, 0]
    discriminator_terms(logits, replaced != x, x != 0)["loss"].backward()
    assert all(p.grad is None for p in method.generator.parameters())
    assert replaced[where].min() > 4, "special tokens are not drawn"


def test_electra_sampled_original_is_no_replacement():
    logits = torch.zeros(1, 3, dtype=torch.float64)
    present = torch.tensor([[True, True, False]])
    terms = discriminator_terms(logits, torch.tensor([[True, False, True]]), present)
    assert terms["loss"].item() == pytest.approx(math.log(2))
    assert terms["accuracy"] == 0.5  # logits of 0 mean: not replaced


# simcse --------------------------------------------------------------------------------------------------------------


def test_simcse_matches_reference():
    """Eq. (4), sample by sample: cosine similarities over all second passes."""
    torch.manual_seed(0)
    method = SimCSE(network(dropout=0.2)).double().train()
    torch.manual_seed(1)
    out = method(batch())
    torch.manual_seed(1)
    z = method.head(method.backbone(torch.cat([batch().views[0]] * 2))).detach().numpy()
    first, second = z[: len(LENGTHS)], z[len(LENGTHS) :]
    losses = []
    for i, own in enumerate(first):
        scores = [cos(own, other) / 0.05 for other in second]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[i])
    assert out["loss"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_simcse_passes_differ_by_dropout():
    method = SimCSE(network(dropout=0.2)).train()
    z, other = method.backbone(torch.cat([texts(LENGTHS)] * 2)).chunk(2)
    assert ((z - other).abs().amax(dim=1) > 0.01).all()


@pytest.mark.parametrize("net", [network(dropout=0.0), Bag((L,), 8, values=VALUES)])
def test_simcse_needs_dropout(net):
    with pytest.raises(ValueError, match="it has none"):
        SimCSE(net)


# tsdae ---------------------------------------------------------------------------------------------------------------


def decoder_slowly(method: TSDAE, x: Tensor, h: Tensor) -> Tensor:
    """Logits of the token after each of x (L,), for one text: attention with loops, cross-attention to [h] by a softmax."""
    decoder = method.decoder
    rows = method.backbone.token_embedding.weight[x] + decoder.position_embeddings.weight[: len(x)]
    rows = F.layer_norm(rows, rows.shape[-1:], decoder.LayerNorm.weight, decoder.LayerNorm.bias, 1e-12)
    for layer in decoder.layers:
        heads, d = layer.attention.heads, rows.shape[1] // layer.attention.heads
        q, k, v = (
            part(rows).view(-1, heads, d)
            for part in (layer.attention.query, layer.attention.key, layer.attention.value)
        )
        out = torch.zeros_like(q)
        for i in range(len(x)):
            for a in range(heads):
                weights = torch.stack([q[i, a] @ k[j, a] / math.sqrt(d) for j in range(i + 1)]).softmax(dim=0)
                out[i, a] = sum(w * v[j, a] for j, w in enumerate(weights))
        rows = layer.attention_output(out.reshape(len(x), -1), rows)
        key = torch.randn(d, dtype=rows.dtype)  # any: the softmax over one key is 1
        cross = torch.stack([(row[:d] @ key)[None].softmax(dim=0) * layer.value(h) for row in rows])
        rows = layer.cross_output(cross, rows)
        rows = layer.output(F.gelu(layer.intermediate(rows)), rows)
    return method.head(rows)


def test_tsdae_matches_reference():
    method, data = double(TSDAE(network(), decoder_depth=2, heads=2)), batch()
    (x,) = data.views
    corrupted, losses = method.corrupt(x, data), []
    for text, short in zip(x, corrupted, strict=True):
        content = text[text != 0]
        logits = decoder_slowly(method, content[:-1], method.backbone(short[None])[0])
        losses += list(F.cross_entropy(logits, content[1:], reduction="none"))
    slow, out = torch.stack(losses).mean(), method(data)
    torch.testing.assert_close(out["loss"], slow, rtol=1e-9, atol=0)
    assert_same(gradients(out["loss"], method), gradients(slow, method), {})


def test_tsdae_reports_collapse():
    method, data = TSDAE(network()), batch()
    assert method(data)["spread"] > 0.01
    method.backbone.register_forward_hook(lambda module, args, h: h[:1].expand_as(h))
    assert method(data)["spread"] < 1e-6


def test_tsdae_sees_the_text_through_one_vector():
    method, data = double(TSDAE(network())), batch()
    (x,) = data.views
    h = torch.randn(len(x), 16, dtype=torch.float64, requires_grad=True)
    method.decoder(x, h, VALUES)[0, 5].sum().backward()
    assert h.grad[0].abs().sum() > 0
    assert not h.grad[1:].any()


def test_deleted_tokens():
    x = texts((24,) * 500)
    scores = Draw(0, 0, torch.arange(500)).uniform("delete", L)
    out = delete_tokens(x, scores, 0.6, VALUES)
    left = (out > 4).sum(dim=1).float()
    assert left.mean().item() == pytest.approx(0.4 * 22, abs=0.4)
    for before, after, u in zip(x.tolist(), out.tolist(), scores.tolist(), strict=True):
        kept = [t for t, score in zip(before[1:-1], u[1:-1], strict=True) if score >= 0.6]
        assert after[: len(kept) + 2] == [2, *kept, 3]
        assert not any(after[len(kept) + 2 :])


def test_one_token_is_never_deleted():
    x = texts((4, 3, 2))
    x[2, 1] = 0
    out = delete_tokens(x, torch.zeros(3, L) + torch.arange(L) / 100, 0.6, VALUES)
    assert out[0, :4].tolist() == [2, x[0, 2], 3, 0]
    assert torch.equal(out[1:], x[1:])
    assert delete_tokens(torch.zeros(2, 5, dtype=torch.int64), torch.rand(2, 5), 0.6, VALUES).sum() == 0


def test_tsdae_decodes_greedily():
    method, data = double(TSDAE(network())), batch()
    columns = method.figures(data)["decoded"]
    h, out = method.backbone(columns["given"]), columns["decoded"]
    for row, vector in zip(out, h, strict=True):
        text = row[row != 0]
        logits = decoder_slowly(method, text[:-1], vector)
        logits[:, 0] = -torch.inf  # padding
        assert torch.equal(logits.argmax(dim=1), text[1:])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TSDAE, {"delete": 1.0}, "delete must be"),
        (TSDAE, {"heads": 3}, "divide the width"),
        (ELECTRA, {"generator_ratio": 2.0}, "generator_ratio"),
        (ELECTRA, {"weight": 0.0}, "above 0"),
        (SimCSE, {"temperature": 0.0}, "above 0"),
        (Autoregressive, {"prefix": "some"}, "random or none"),
        (Autoregressive, {"head_ratio": 0.01}, "head_ratio"),
    ],
)
def test_impossible_options_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(network(), **options)


# autoregressive ------------------------------------------------------------------------------------------------------


def test_gpt_matches_transformers():
    """BertLMHeadModel: causal attention, the head of BERT, cross-entropy of the next token."""
    method, data = double(Autoregressive(network(causal=True), prefix="none")), batch()
    net, (x,) = method.backbone, data.views
    model = transformers().BertLMHeadModel(config(net, is_decoder=True, use_cache=False)).double().eval()
    model.bert.load_state_dict(net.state_dict())
    copy_head(method.head, model.cls.predictions)
    logits = model(x, attention_mask=(x != 0).long()).logits
    theirs = F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten(), ignore_index=0)
    out = method(data)
    torch.testing.assert_close(out["loss"], theirs, rtol=1e-10, atol=0)
    ours, expected = gradients(out["loss"], net, method.head), gradients(theirs, model.bert, model.cls.predictions)
    assert_same(ours, expected, HEAD)


def test_causal_backbone_equals_causal_mask():
    data = batch()
    a = double(Autoregressive(network(causal=True), prefix="none"))(data)["loss"]
    b = double(Autoregressive(network(), prefix="none"))(data)["loss"]
    torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


def test_prefix_attends_to_both_sides():
    method, data = double(Autoregressive(network())), batch()
    (x,) = data.views
    length = 1 + (data.uniform("prefix") * (L - 1)).long()
    at, losses = torch.arange(L), []
    for row, n in zip(x, length.tolist(), strict=True):
        attend = (at[None] <= at[:, None]) | (at[None] < n)
        model = hugging_face(method.backbone)
        mask = (attend & (row != 0)[None])[None, None]
        logits = method.head(model(row[None], attention_mask=mask.double().log()).last_hidden_state)[0]
        losses += [F.cross_entropy(logits[i - 1], row[i]) for i in range(n, L) if row[i] != 0]
    torch.testing.assert_close(method(data)["loss"], torch.stack(losses).mean(), rtol=1e-9, atol=0)


def test_causal_backbone_has_no_prefix():
    with pytest.raises(ValueError, match=r"method\.prefix=none"):
        Autoregressive(network(causal=True))


def test_continuations_are_drawn_from_the_predictions():
    method, data = double(Autoregressive(network(causal=True), prefix="none")), batch()
    columns = method.figures(data)["generate"]
    (x,) = data.views
    assert set(columns) == {"source", "start", "first continuation", "second continuation"}
    first, second = columns["first continuation"], columns["second continuation"]
    assert not torch.equal(first, second)
    for row, made in zip(x, first, strict=True):
        n = max(1, int((row != 0).sum()) // 2)
        assert torch.equal(made[:n], row[:n])
        ends = (made[n:] == 3).nonzero().flatten()
        assert not len(ends) or not made[n + int(ends[0]) + 1 :].any()
        assert not torch.isin(made[n:], torch.tensor([1, 2, 4])).any()


def test_text_has_no_hidden_layer_in_the_head():
    from sslcli.nn.bert_layers import PredictionHead

    assert isinstance(Autoregressive(network()).head, PredictionHead)
    assert isinstance(Autoregressive(network(), 2.0).head, nn.Sequential)
