"""The probe of values: baselines stand beside it, and unknown or equal values, groups and few rows are handled."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import sslcli.data
from sslcli.backbones.mlp import MLP
from sslcli.data.dataset import ArraySource
from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.metrics.interval import SUFFIX
from sslcli.evals.probe import probe
from sslcli.evals.retrieval import retrieval
from sslcli.nn.values import Columns
from tests.evals.regression import conftest


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


def test_rows_without_a_value_teach_nothing():
    whole, some = conftest.dataset(), conftest.dataset()
    hidden = torch.arange(1, 120, 2)
    some.train.targets["value"][hidden] = torch.nan
    some.test.targets["value"][:15] = torch.nan
    result = probe(nn.Flatten(), EvalData(some))
    assert result.protocol["splits"] == {"train": 120, "labelled": 60, "test": 45}
    assert all(math.isfinite(v) for v in result.metrics.values())
    assert result.metrics["r2"] > 0.99
    whole.train.targets["value"][hidden] = -1000.0
    assert probe(nn.Flatten(), EvalData(whole)).metrics["r2"] < 0.5  # these values would be noticed
    assert [row[0] for row in result.artefacts["values.csv"].rows] == list(range(15, 60))


def test_draws_choose_from_rows_with_a_value():
    data = conftest.dataset()
    data.train.targets["value"][10:] = torch.nan
    with pytest.raises(RequestError, match="only 10 training labels"):
        probe(nn.Flatten(), EvalData(data), labels=11)
    assert probe(nn.Flatten(), EvalData(data), labels="50%").protocol["splits"]["labelled"] == 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_values_are_required_in_both_splits(split):
    data = conftest.dataset()
    getattr(data, split).targets["value"][:] = torch.nan
    with pytest.raises(DataError, match=f"planes has no values to predict in its {split} split"):
        probe(nn.Flatten(), EvalData(data))


def test_groups_are_not_divided_to_choose_alpha():
    """Copies of a row in other folds would make the smallest penalty look best."""
    data = conftest.dataset(30)
    g = torch.Generator().manual_seed(0)
    x, value = torch.randn(30, 60, generator=g), torch.randn(30, generator=g).double()
    plain = replace(data, shape=(60,), values=Columns((0,) * 60, (0.0,) * 60, (1.0,) * 60))
    copies = torch.arange(120) % 30
    test = ArraySource(x + 1, targets={"value": value})
    alpha = {}
    for grouped in (False, True):
        train = ArraySource(x[copies], targets={"value": value[copies]}, groups=copies if grouped else None)
        made = EvalData(replace(plain, train=train, test=test))
        alpha[grouped] = probe(nn.Flatten(), made, baselines=False).protocol["strength"]["alpha"][0]
    assert alpha[True] > 1000 * alpha[False]


def test_equal_values_are_predicted_exactly():
    data = conftest.dataset()
    data.train.targets["value"][:] = 0.1
    data.test.targets["value"][:] = 0.1
    result = probe(nn.Flatten(), EvalData(data), seeds=2)
    assert result.metrics["rmse"] == pytest.approx(0, abs=1e-12)
    assert not any("r2" in name for name in (*result.metrics, *result.intervals))
    assert "r2 is left out: all test samples have the same value" in result.protocol["notes"]
    json.dumps([result.metrics, result.details], allow_nan=False)


def test_equal_training_values_predict_the_mean():
    data = conftest.dataset()
    data.train.targets["value"][:] = float(data.test.targets["value"].mean())
    for kind, value in probe(nn.Flatten(), EvalData(data)).metrics.items():
        if kind.endswith("r2"):
            assert value == pytest.approx(0, abs=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_few_rows(rows):
    result = probe(nn.Flatten(), EvalData(conftest.dataset(rows, 20)))
    assert all(math.isfinite(v) for v in result.metrics.values())
    chosen = result.protocol["strength"]["chosen_by"]
    assert chosen == (
        "default: too few labels to choose from"
        if rows < 4
        else "squared error over 4 folds of 4 labelled training samples"
    )


def test_one_test_sample_has_no_interval():
    result = probe(nn.Flatten(), EvalData(conftest.dataset(40, 1)), baselines=False)
    assert set(result.metrics) == {"rmse", "mae"}
    assert result.intervals == {}
