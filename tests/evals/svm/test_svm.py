"""`eval probe evaluator.kind=svm`: the protocol of TS2Vec, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.probe import probe
from sslcli.evals.svm.fit import C_VALUES, fit_svm


def rings(n: int, seed: int, groups: bool = False) -> ArraySource:
    """Three rings around each other: no linear model tells them apart."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    angle = 6.28 * torch.rand(n, generator=g)
    radius = 1 + y + 0.35 * torch.randn(n, generator=g)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return ArraySource(x[:, None], y, groups=torch.arange(n) // 12 if groups else None)


def ring_data(groups: bool = False, **changes) -> Dataset:
    given = {"classes": ("a", "b", "c"), **changes}
    return Dataset("rings", "series", (1, 2), rings(120, 0, groups), rings(90, 1), **given)


def test_svm_separates_rings_and_keeps_no_classifier():
    data = EvalData(ring_data(), untrained=nn.Flatten)
    result = probe(nn.Flatten(), data, kind="svm", seeds=2, baselines="untrained")
    linear = probe(nn.Flatten(), data, baselines=False, calibrate=False)
    assert result.metrics["top1"] > 0.8 > linear.metrics["top1"] + 0.2
    assert result.metrics["untrained.top1"] == result.metrics["top1"]
    assert result.fitted is None
    assert any("no classifier is kept" in note for note in result.protocol["notes"])
    assert result.protocol["strength"]["grid"][-1] == "infinity"  # JSON has no such number
    assert result.artefacts["confusion.png"].counts.sum() == 2 * 90
    assert probe(nn.Flatten(), data, kind="svm", seeds=2, baselines=False).metrics["top1"] == result.metrics["top1"]


def test_svm_follows_the_authors_protocol():
    """The lines of `tasks/_eval_protocols.py` of TS2Vec, with its grid."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    x, y, x_test = rings(120, 2).x.flatten(1), rings(120, 2).labels, rings(90, 3).x.flatten(1)
    grid = {"svc__C": [0.0001, 0.001, 0.01, 0.1, 1, 10, 100, 1000, 10000, np.inf], "svc__kernel": ["rbf"]}
    theirs = GridSearchCV(make_pipeline(SVC(C=np.inf, gamma="scale")), {**grid, "svc__gamma": ["scale"]}, cv=5)
    theirs.fit(x.double().numpy(), y.numpy())
    ours = fit_svm(x, y, C_VALUES, 0, 0)
    assert ours.choice.value == theirs.best_params_["svc__C"]
    assert np.array_equal(ours.predict(x_test)[0].numpy(), theirs.predict(x_test.double().numpy()))


def test_svm_of_few_labels_has_a_hard_margin():
    x, y = rings(48, 0).x.flatten(1), rings(48, 0).labels
    assert fit_svm(x, y, C_VALUES, 0, 0).choice.value == float("inf")
    assert fit_svm(x, y, (2.0,), 0, 0).choice.value == 2.0


def test_svm_does_not_divide_groups():
    """A class is recognized in the same group alone: within folds of whole groups no C is better than another."""
    g = torch.Generator().manual_seed(0)
    y, group = torch.arange(120) % 2, torch.arange(120) // 12
    centers = torch.randn(10, 2, 40, generator=g) * 3
    x = centers[group, y] + 0.1 * torch.randn(120, 40, generator=g)
    with_groups, without = (fit_svm(x, y, (0.1, 10.0), 0, 0, groups) for groups in (group, None))
    assert without.choice.how == with_groups.choice.how == "accuracy over 5 folds of 120 labelled training samples"
    assert fit_svm(x, y, C_VALUES, 0, 0, group % 3).choice.value == float("inf")  # fewer groups than folds


def test_svm_refuses_values_and_unknown_kinds():
    with pytest.raises(RequestError, match="expected linear or svm"):
        probe(nn.Flatten(), EvalData(ring_data()), kind="tree")
    with pytest.raises(RequestError, match="has a value to predict"):
        probe(nn.Flatten(), EvalData(ring_data(task="value", classes=())), kind="svm")


def test_svm_that_does_not_converge_is_reported(monkeypatch):
    """Classes that overlap have no hard margin: the solver ends at its limit, and the protocol says so."""
    for module in ("fit", "probe"):
        monkeypatch.setattr(f"sslcli.evals.svm.{module}.ITERATIONS", 20)
    data = EvalData(ring_data())
    result = probe(nn.Flatten(), data, kind="svm", strengths=[1e9], baselines=False)
    assert any("has not converged in 20 iterations" in note for note in result.protocol["notes"])
    monkeypatch.undo()
    result = probe(nn.Flatten(), data, kind="svm", strengths=[1.0], baselines=False)
    assert not any("converged" in note for note in result.protocol["notes"])
