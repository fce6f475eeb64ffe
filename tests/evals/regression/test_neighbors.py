"""k-NN regression equals that of scikit-learn, is in bounded memory, and stands beside its baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.neighbors import mean_values
from sslcli.evals.knn import knn
from sslcli.evals.metrics.interval import SUFFIX
from tests.evals.regression.conftest import backbone, dataset

METRICS = {"rmse", "mae", "r2"}


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (20, 1.0)])
def test_means_equal_those_of_scikit_learn(k, temperature):
    from sklearn.neighbors import KNeighborsRegressor

    g = torch.Generator().manual_seed(0)
    bank, queries = (F.normalize(torch.randn(n, 5, generator=g), dim=1) for n in (200, 30))
    y = torch.randn(200, generator=g).double() * 50 - 1000
    reference = KNeighborsRegressor(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    expected = reference.fit(bank.numpy(), y.numpy()).predict(queries.numpy())
    found = mean_values(bank, y, queries, k, temperature)
    assert found.dtype == torch.float64
    assert np.allclose(found, expected, rtol=1e-6)


def test_small_temperature_is_the_nearest_value():
    bank = F.normalize(torch.randn(50, 4, generator=torch.manual_seed(0)), dim=1)
    y = torch.arange(50.0)
    assert torch.equal(mean_values(bank, y, bank, 5, 1e-5), y.double())


def test_metrics_of_a_value(planes):
    result = knn(nn.Flatten(), planes, labels=60, seeds=2, k=5)
    for kind in ("", "raw.", "untrained.", "linear.", "boosting."):
        assert {f"{kind}{m}{s}" for m in METRICS for s in ("", "_std")} <= result.metrics.keys()
        assert {f"{kind}{m}{SUFFIX}" for m in METRICS} <= result.intervals.keys()
    assert result.metrics["linear.r2"] > 0.99 > result.metrics["r2"] > 0.5
    assert result.metrics["raw.r2"] == pytest.approx(
        result.metrics["r2"], abs=0.1
    )  # the same columns, with marks of missing ones
    assert result.protocol["splits"] == {"train": 120, "labelled": 60, "test": 60}
    assert (result.protocol["k"], result.protocol["task"]) == (5, "value")
    assert set(result.protocol["baselines"]) == {"linear", "boosting"}
    assert set(result.artefacts) == {"values.png", "values.csv"}
    assert len(result.details["draws"]["rmse"]) == 2


@pytest.mark.parametrize(
    ("baselines", "kinds"), [(False, {""}), ("raw", {"", "raw."}), ("untrained", {"", "untrained."})]
)
def test_requested_baselines_of_a_value(planes, baselines, kinds):
    assert set(knn(backbone(), planes, baselines=baselines).metrics) == {
        f"{kind}{m}" for kind in kinds for m in METRICS
    }


def test_draws_without_effect_and_too_large_k(planes):
    result = knn(backbone(), planes, seeds=4, k=500, baselines=False)
    assert set(result.metrics) == METRICS
    notes = " ".join(result.protocol["notes"])
    assert "seeds=4 has no effect" in notes
    assert "k=500 is more than the 120 labeled training samples" in notes


def test_samples_without_a_value_are_left_out():
    data = dataset()
    hidden = torch.arange(0, 120, 3)
    data.train.x[hidden] = 1000.0  # neighbors that would spoil the prediction, were they used
    data.train.targets["value"][hidden] = torch.nan
    data.test.targets["value"][:20] = torch.nan
    result = knn(nn.Flatten(), EvalData(data), k=5)
    assert result.protocol["splits"] == {"train": 120, "labelled": 80, "test": 40}
    assert result.metrics["r2"] > 0.5


def test_refusals_of_a_value(planes):
    with pytest.raises(RequestError, match="labels=5/class: planes has a value to predict"):
        knn(backbone(), planes, labels="5/class")
    with pytest.raises(RequestError, match="only 120 training labels"):
        knn(backbone(), planes, labels=500)
    data = dataset()
    data.test.targets["value"][:] = torch.nan
    with pytest.raises(DataError, match="no values to predict in its test split"):
        knn(backbone(), EvalData(data))
