"""RecBole's SASRec and metrics on the same weights, histories and scores; skipped where RecBole is not installed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sslcli.backbones.bert import BERT
from sslcli.batch import Batch
from sslcli.evals.recommendation.ranks import metrics, target_ranks
from sslcli.methods.sasrec import SASRec
from sslcli.nn.values import Tokens
from sslcli.rng import Draw

ITEMS, LENGTH, WIDTH = 18, 6, 16
VALUES = Tokens(ITEMS + 2, pad=0, mask=1, special=(0, 1))
HISTORIES = torch.tensor([[2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0], [11, 12, 0, 0, 0, 0], [12, 12, 13, 14, 15, 0]])


@pytest.fixture(autouse=True)
def removed_names(monkeypatch):
    """RecBole 1.2 uses names that NumPy 2 does not have."""
    for name, kind in (("float", float), ("float_", np.float64), ("long", int)):
        if not hasattr(np, name):
            monkeypatch.setattr(np, name, kind, raising=False)


def theirs(backbone: BERT) -> torch.nn.Module:
    """Their SASRec with the weights of a backbone."""
    sasrec = pytest.importorskip("recbole.model.sequential_recommender.sasrec")
    config = {
        "USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "length",
        "NEG_PREFIX": "neg_", "MAX_ITEM_LIST_LENGTH": LENGTH, "device": "cpu", "n_layers": 2, "n_heads": 2,
        "hidden_size": WIDTH, "inner_size": 4 * WIDTH, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02, "loss_type": "CE",
    }  # fmt: skip
    model = sasrec.SASRec(config, SimpleNamespace(num=lambda field: VALUES.size)).double().eval()
    own = backbone.state_dict()
    names = {
        "item_embedding.weight": own["embeddings.word_embeddings.weight"],
        "position_embedding.weight": own["embeddings.position_embeddings.weight"]
        + own["embeddings.token_type_embeddings.weight"][:1],
        "LayerNorm.weight": own["embeddings.LayerNorm.weight"],
        "LayerNorm.bias": own["embeddings.LayerNorm.bias"],
    }
    parts = {
        "multi_head_attention.query": "attention.self.query",
        "multi_head_attention.key": "attention.self.key",
        "multi_head_attention.value": "attention.self.value",
        "multi_head_attention.dense": "attention.output.dense",
        "multi_head_attention.LayerNorm": "attention.output.LayerNorm",
        "feed_forward.dense_1": "intermediate.dense",
        "feed_forward.dense_2": "output.dense",
        "feed_forward.LayerNorm": "output.LayerNorm",
    }
    for layer in range(2):
        for there, here in parts.items():
            for kind in ("weight", "bias"):
                names[f"trm_encoder.layer.{layer}.{there}.{kind}"] = own[f"encoder.layer.{layer}.{here}.{kind}"]
    model.load_state_dict(names)
    return model


def test_sasrec_matches_recbole():
    """The output for each prefix of each history, and their cross-entropy over the items."""
    torch.manual_seed(0)
    backbone = BERT((LENGTH,), WIDTH, 2, 2, dropout=0.0, causal=True, pool="last", values=VALUES).double()
    model = theirs(backbone)
    losses = []
    for row in HISTORIES.tolist():
        items = [i for i in row if i]
        for n in range(1, len(items)):
            prefix = torch.tensor([items[:n] + [0] * (LENGTH - n)])
            with torch.no_grad():
                out = model(prefix, torch.tensor([n]))
                torch.testing.assert_close(backbone(prefix), out, rtol=1e-9, atol=1e-12)
            logits = out @ model.item_embedding.weight[2:].T  # items alone: theirs has the row of padding as well
            losses.append(model.loss_fct(logits, torch.tensor([items[n] - 2])))
    mine = SASRec(backbone).eval()(Batch([HISTORIES], ["weak"], Draw(0, 0, torch.arange(len(HISTORIES)))))
    assert mine["loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)


def test_metrics_match_recbole():
    evaluator = pytest.importorskip("recbole.evaluator.metrics")
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(200, 60, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 60, (200,), generator=generator)
    found, _ = metrics(target_ranks(scores, target), [10, 20], "keep")
    hits = scores.topk(20, dim=1).indices == target[:, None]
    collected = torch.cat([hits.int(), torch.ones(200, 1, dtype=torch.int32)], dim=1)
    config = {"topk": [10, 20], "metric_decimal_place": 10}
    expected = {}
    for kind in (evaluator.Hit, evaluator.NDCG, evaluator.MRR):
        expected |= kind(config).calculate_metric({"rec.topk": collected})
    names = {"hr": "hit", "ndcg": "ndcg", "mrr": "mrr"}
    for name, there in names.items():
        for k in (10, 20):
            assert found[f"{name}@{k}"] == pytest.approx(float(expected[f"{there}@{k}"]), abs=1e-9), (name, k)
