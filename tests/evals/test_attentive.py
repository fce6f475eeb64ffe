from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.vit import ViT
from sslcli.data.dataset import ArraySource
from sslcli.errors import RequestError
from sslcli.evals.attentive import attentive
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit import attentive_head as module
from sslcli.evals.fit.attentive_head import Head, moments
from sslcli.evals.probe import probe
from tests.evals import learners, toys

QUICK = {"epochs": 0, "min_steps": 40}


def vit(seed: int = 0, shape=(1, 8, 8)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViT(shape, width=16, depth=1, heads=2, patch=2 if len(shape) == 3 else 5)


def test_attentive_head_matches_torch_attention():
    g = torch.Generator().manual_seed(0)
    t = torch.randn(5, 7, 12, generator=g)
    seen = torch.rand(5, 7, generator=g) < 0.7
    seen[:, 0] = True
    mean, std = torch.randn(12, generator=g), torch.rand(12, generator=g) + 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = Head(12, 3, 4, mean, std)
    z = ((t - mean) / std).transpose(0, 1)
    found, _ = F.multi_head_attention_forward(
        head.query.flatten().expand(1, 5, 12),
        z,
        z,
        embed_dim_to_check=12,
        num_heads=3,
        in_proj_weight=torch.cat([torch.eye(12), head.key.weight, head.value.weight]),
        in_proj_bias=torch.cat([torch.zeros(12), head.key.bias, head.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=torch.eye(12),
        out_proj_bias=torch.zeros(12),
        key_padding_mask=~seen,
    )
    torch.testing.assert_close(head(t, seen), head.classify(found[0]))
    assert not torch.allclose(head(t, seen), head(t))


def test_token_moments_match_torch():
    x = torch.randn(600, 3, 4).half()
    rows = torch.arange(0, 600, 2)
    mean, std = moments(x, rows, None)
    flat = x[rows].flatten(0, 1).float()
    torch.testing.assert_close(mean, flat.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(std, flat.std(dim=0, correction=0), atol=1e-5, rtol=1e-4)
    seen = torch.zeros(600, 3, dtype=torch.bool)
    seen[:, 0] = True
    torch.testing.assert_close(moments(x, rows, seen)[0], x[rows][:, 0].float().mean(dim=0), atol=1e-5, rtol=1e-4)


def test_attentive_metrics_and_protocol():
    data = EvalData(toys.dataset(), untrained=lambda: vit(9))
    result = attentive(vit(), data, labels="10/class", seeds=2, **QUICK)
    assert set(result.metrics) == {f"{k}top1{s}" for k in ("", "linear.", "untrained.") for s in ("", "_std")}
    assert result.metrics["top1"] > 0.5
    assert result.metrics["linear.top1"] == probe(vit(), data, labels="10/class", seeds=2).metrics["top1"]
    assert len(result.protocol["lr"]["used"]) == 2
    assert result.artefacts["predictions.safetensors"].predicted.shape == (2, 120)
    json.dumps(result.protocol)
    again = attentive(vit(), EvalData(toys.dataset(), untrained=lambda: vit(9)), labels="10/class", seeds=2, **QUICK)
    assert again.metrics == result.metrics


def test_attentive_head_solves_task_mean_pooling_cannot():
    """The class is the index of the bright token; the mean over tokens is equal for all classes."""
    g = torch.Generator().manual_seed(0)

    def rows(n):
        y = torch.randint(0, 2, (n,), generator=g)
        x = torch.randint(0, 40, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
        x[:, 0, :2, :2] += (y[:, None, None] * 200).to(torch.uint8)
        x[:, 0, 6:, 6:] += ((1 - y)[:, None, None] * 200).to(torch.uint8)
        return ArraySource(x, y)

    class Patches(ViT):
        """Tokens that are the patches and where they lie; pooled, only the patches."""

        def tokens(self, x, keep=None):
            p = self.patchify(x).repeat(1, 1, 2)  # (B, N, 8)
            place = torch.eye(self.num_tokens)[:, :8].expand(len(x), -1, -1)
            return F.pad(torch.cat([p, p * place], dim=2), (0, 0, 1, 0))

        def forward(self, x):
            return self.patchify(x).mean(dim=1).repeat(1, 4)

    data = learners.data()
    data.dataset.train, data.dataset.test = rows(200), rows(100)
    backbone = Patches((1, 8, 8), width=16, depth=1, heads=2, patch=2)
    result = attentive(backbone, data, baselines=False, lr=3e-2, epochs=0, min_steps=200)
    assert result.metrics["linear.top1"] < 0.7
    assert result.metrics["top1"] > 0.95


def test_attentive_on_padded_series():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, 23, generator=g)
    y = torch.arange(60) % 2
    x[:, 0] += y[:, None] * 2.0
    x[::3, :, 12:] = float("nan")
    rows = toys.dataset()
    rows.modality, rows.shape, rows.mean, rows.std, rows.classes = "series", (2, 23), (0.0, 0.0), (1.0, 1.0), ("a", "b")
    rows.train = rows.test = ArraySource(x, y)
    result = attentive(vit(shape=(2, 23)), EvalData(rows), lr=1e-2, **QUICK)
    assert result.metrics["top1"] > 0.8


def test_attentive_fit_ignores_the_test_split():
    found = []
    for shuffle in (False, True):
        rows = toys.dataset()
        if shuffle:
            rows.test.labels = rows.test.labels[torch.randperm(120, generator=torch.manual_seed(0))]
        found.append(attentive(vit(), EvalData(rows), labels="10/class", **QUICK))
    assert found[0].protocol == found[1].protocol
    own, theirs = (r.artefacts["predictions.safetensors"].predicted for r in found)
    assert torch.equal(own, theirs)
    assert found[0].metrics != found[1].metrics


def test_attentive_rejects_invalid_settings(monkeypatch):
    data = EvalData(toys.dataset())
    with pytest.raises(RequestError, match="Rows has none") as error:
        attentive(toys.Rows(), data)
    assert "eval probe" in error.value.hint
    for wrong in ({"heads": 5}, {"lr": -1.0}, {"lr": []}, {"epochs": -1}, {"min_steps": 0}, {"batch_size": 0}):
        with pytest.raises(RequestError, match=f"evaluator.{next(iter(wrong))}=") as error:
            attentive(vit(), data, **wrong)
        assert "evaluator." in error.value.hint
    monkeypatch.setattr(module, "CACHE", 240 * 16 * 16 * 2 - 1)
    with pytest.raises(RequestError, match="tokens of 240 labelled samples") as error:
        attentive(vit(), data)
    assert error.value.hint == "labels=79/class"
