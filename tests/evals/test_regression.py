"""The probe of values: ridge regression equals that of scikit-learn, errors equal formulas, and baselines stand beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

import sslcli.data
from sslcli.backbones.mlp import MLP
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.metrics.interval import SUFFIX
from sslcli.evals.probe import probe
from sslcli.evals.regression.errors import errors
from sslcli.evals.regression.ridge import ALPHA_GRID, Ridge, choose_alpha
from sslcli.evals.retrieval import retrieval


@pytest.mark.parametrize("n", [12, 80])  # fewer rows than features, and more
@pytest.mark.parametrize("alpha", [1e-3, 10.0])
def test_ridge_equals_that_of_scikit_learn(n, alpha):
    g = np.random.default_rng(0)
    x, y = g.normal(size=(n, 30)), g.normal(size=n) + 5
    expected = Reference(alpha=alpha).fit(x, y)
    fit = Ridge(torch.tensor(x), torch.tensor(y)).fit(alpha)
    assert np.allclose(fit.weight, expected.coef_)
    assert np.allclose(fit.predict(torch.tensor(x)), expected.predict(x))


def test_errors_equal_those_of_scikit_learn():
    g = np.random.default_rng(1)
    y, predicted = g.normal(size=50), g.normal(size=(2, 50))
    expected = [[f(y, p) for p in predicted] for f in (root_mean_squared_error, mean_absolute_error, r2_score)]
    assert np.allclose(errors(torch.tensor(y), torch.tensor(predicted)), expected)


def test_alpha_grows_with_the_noise():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 40, generator=g)
    signal = x @ torch.randn(40, generator=g)
    noise = torch.randn(60, generator=g)
    clean, noisy = (choose_alpha(x, signal + s * noise, ALPHA_GRID, 0, 0).value for s in (0.01, 30.0))
    assert clean < noisy


@pytest.fixture(scope="module")
def measured():
    dataset = sslcli.data.diabetes()
    torch.manual_seed(0)
    data = EvalData(dataset, untrained=lambda draw=0: MLP(dataset.shape, width=16, values=dataset.values).eval())
    backbone = MLP(dataset.shape, width=16, values=dataset.values).eval()
    return data, backbone, probe(backbone, data, labels=100, seeds=2)


def test_values_are_probed_beside_baselines(measured):
    data, _, result = measured
    for kind in ("", "raw.", "untrained.", "linear.", "boosting."):
        assert {f"{kind}{m}{s}" for m in ("rmse", "mae", "r2") for s in ("", "_std")} <= result.metrics.keys()
    low, high = result.intervals[f"rmse{SUFFIX}"]
    assert low < result.metrics["rmse"] < high
    assert result.protocol["task"] == "value"
    assert result.protocol["splits"] == {"train": 353, "labelled": 100, "test": 89}
    values = data.dataset.test.targets["value"]
    assert result.metrics["raw.rmse"] < float(values.std())  # better than the mean


def test_classes_are_required_by_other_evaluators(measured):
    data, backbone, _ = measured
    with pytest.raises(RequestError, match="has a value to predict"):
        retrieval(backbone, data)


def test_two_classes_have_auroc():
    dataset = sslcli.data.breast_cancer()
    torch.manual_seed(0)
    backbone = MLP(dataset.shape, width=16, values=dataset.values).eval()
    metrics = probe(backbone, EvalData(dataset), labels="20/class", seeds=2).metrics
    assert 0.5 < metrics["auroc"] < metrics["raw.auroc"] <= 1
    assert {"linear.auroc", "boosting.top1", "raw.auroc"} <= metrics.keys()


def test_finetune_has_baselines_and_no_mixup_of_rows():
    dataset = sslcli.data.wine()
    torch.manual_seed(0)
    backbone = MLP(dataset.shape, width=16, values=dataset.values).eval()
    short = {"epochs": 1, "min_steps": 1, "augment": "weak", "labels": "5/class"}
    data = EvalData(dataset, recipes={"weak": {}})
    result = finetune(backbone, data, **short)
    probed = probe(backbone, data, labels="5/class").metrics
    assert {k: result.metrics[k] for k in ("linear.top1", "boosting.top1")} == {
        k: probed[k] for k in ("linear.top1", "boosting.top1")
    }
    assert "default settings" in result.protocol["baselines"]["boosting"]["note"]
    with pytest.raises(RequestError, match="do not apply to rows"):
        finetune(backbone, data, **short, mixup=0.2)
