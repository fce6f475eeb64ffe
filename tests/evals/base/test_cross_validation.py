"""Cross-validation tests every labeled sample once, by a model fitted without its label."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.evals.base import cross_validation
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.neighbors import classify
from sslcli.evals.inputs.label_subsets import folds
from sslcli.evals.knn import knn
from sslcli.evals.probe import probe
from tests.evals import toys


def few(noise: bool = False, groups: bool = False) -> Dataset:
    """60 + 20 images of which 40 + 10 have a label; with `noise` the labels are random."""
    rows = toys.dataset(60, 20, classes=2)
    g = torch.Generator().manual_seed(5)
    for source, known in ((rows.train, 40), (rows.test, 10)):
        if noise:
            source.labels = torch.randint(0, 2, (len(source),), generator=g)
        source.labels[known:] = -1
        if groups:
            source.groups = torch.arange(len(source)) // 4 + (100 if source is rows.test else 0)
    return replace(rows, details={"labels": {"few": True, "file": "some.csv", "sha256": ""}})


def test_cross_validated_knn_matches_a_direct_computation():
    rows, backbone = few(), toys.Rows().eval()
    data = EvalData(rows, untrained=toys.Blind)
    result = cross_validation.cross_validated(partial(knn, k=3, temperature=0.1), backbone, data, 1)
    x = torch.nn.functional.normalize(torch.cat([data.features(backbone, s)[0] for s in ("train", "test")]), dim=1)
    y = torch.cat([rows.train.labels, rows.test.labels])
    known = (y >= 0).nonzero().flatten()
    fold = folds(y[known], 5, data.seed, 0)
    said = torch.empty(len(known), dtype=torch.int64)
    for f in range(5):
        inside = known[fold != f]
        said[fold == f] = classify(x[inside], y[inside], x[known[fold == f]], 3, 0.1)
    assert result.metrics["top1"] == pytest.approx(float((said == y[known]).double().mean()))
    found = result.artefacts["predictions.safetensors"]
    assert found.ids.tolist() == known.tolist()
    assert torch.equal(found.y_true, y[known])
    assert torch.equal(found.predicted[0], said)
    assert result.protocol["splits"] == {"train": 80, "labelled": 50, "test": 50}
    assert {"raw.top1", "untrained.top1"} <= set(result.metrics)


def test_cross_validation_of_random_labels_is_chance():
    """Were a label among those that are fitted, a probe of 64 pixels would know it."""
    result = cross_validation.cross_validated(
        partial(probe, strengths=100.0), toys.Rows().eval(), EvalData(few(noise=True)), 2
    )
    assert result.metrics["top1"] < 0.75
    assert result.metrics["raw.top1"] < 0.75
    assert result.metrics["top1_std"] >= 0
    assert result.artefacts["predictions.safetensors"].predicted.shape == (2, 50)
    assert result.artefacts["confusion.png"].counts.sum() == 100
    assert "top1_ci95" in result.intervals


def test_cross_validation_keeps_groups_together():
    rows = few(groups=True)
    for fold in cross_validation.Pooled(EvalData(rows)).divided(0):
        inside, outside = fold.source("train").groups, fold.source("test").groups
        assert not set(inside.tolist()) & set(outside.tolist())


def test_rare_class_leaves_five_folds():
    """A class of two labels is in two folds, and one of a single label in none."""
    rows = few()
    rows.train.labels[:3] = torch.tensor([2, 2, 3])
    rows.test.labels[0] = 0
    pooled = cross_validation.Pooled(EvalData(replace(rows, classes=tuple("abcd"))))
    assert pooled.untested == 1
    divided = list(pooled.divided(0))
    assert len(divided) == 5
    assert torch.equal(torch.cat([fold.wanted["test"] for fold in divided]).sort().values, pooled.tested)
    for fold in divided:
        assert set(fold.labels("test").tolist()) <= set(fold.labels("train").tolist())


def test_class_in_one_group_is_not_tested():
    """What is left out with its only group cannot be predicted."""
    rows = few(groups=True)
    rows.train.labels[:40] = torch.arange(40) % 2
    rows.train.labels[:4] = 2  # the first group
    pooled = cross_validation.Pooled(EvalData(replace(rows, classes=tuple("abc"))))
    assert pooled.untested == 4
    assert not torch.isin(torch.arange(4), pooled.tested).any()


def test_one_group_is_divided():
    rows = few(groups=True)
    for source in (rows.train, rows.test):
        source.groups = torch.zeros(len(source), dtype=torch.int64)
    divided = list(cross_validation.Pooled(EvalData(rows)).divided(0))
    assert len(divided) == 5
    assert all((fold.labels("train") >= 0).sum() == 40 for fold in divided)


def test_cross_validation_skips_unreadable_samples(monkeypatch):
    rows, backbone = few(), toys.Rows().eval()
    data = EvalData(rows)
    whole = data.features(backbone, "train")
    data._features = {key: (x[1:], y[1:]) for key, (x, y) in data._features.items()}
    data._ids["train"] = torch.arange(1, 60)
    assert len(whole[0]) == 60
    result = cross_validation.cross_validated(partial(knn, k=1, baselines=False), backbone, data, 1)
    assert result.artefacts["predictions.safetensors"].ids.tolist() == [*range(1, 40), *range(60, 70)]


def test_cross_validation_applies_to_small_label_files():
    node = {"_target_": "sslcli.evals.knn.knn"}
    assert cross_validation.applies(node, EvalData(few()))
    assert not cross_validation.applies({"_target_": "sslcli.evals.finetune.finetune"}, EvalData(few()))
    assert not cross_validation.applies(node, EvalData(toys.dataset()))
    assert isinstance(few().train, ArraySource)
