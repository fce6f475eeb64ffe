"""Fine-tuning for a value: the training is that of classes with squared error, and begins at the ridge regression of the probe."""

from __future__ import annotations

import json

import pytest
import torch

from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.finetuning.objectives import Values
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.labels import curve
from sslcli.evals.probe import probe
from sslcli.evals.regression.finetune import ridge_head
from sslcli.evals.regression.values import draw_values
from tests.evals.regression import conftest
from tests.evals.regression.conftest import dataset

SHORT = {"epochs": 1, "min_steps": 40, "augment": "weak"}
STILL = {"epochs": 0, "min_steps": 1, "augment": "weak", "lr": 1e-12}


def backbone(draw: int = 0) -> torch.nn.Module:
    """Random weights, with the statistics of batch norm that a training would leave."""
    made = conftest.backbone(draw).train()
    with torch.no_grad():
        for _ in range(60):
            made(dataset().train.resident.tensor)
    return made.eval()


@pytest.fixture
def rows() -> EvalData:
    return EvalData(dataset(), untrained=backbone, recipes={"weak": {}})


def test_training_begins_at_the_ridge_regression_of_the_probe(rows):
    model, values = backbone(), rows.source("train").targets["value"]
    ids = draw_values(values, Amount("count", 60), rows, 0)
    probed = probe(model, rows, labels=60)
    objective = Values(values[ids])
    head = ridge_head(model, rows)(ids, objective.y)
    objective.finish(head)
    with torch.no_grad():
        predicted = head(rows.features(model, "test")[0])[:, 0].double()
    table = torch.tensor([row[3] for row in probed.artefacts["values.csv"].rows], dtype=torch.float64)
    assert predicted == pytest.approx(table, rel=1e-4)
    still = finetune(model, rows, labels=60, baselines=False, **STILL)
    random = finetune(model, rows, labels=60, head="random", baselines=False, **STILL)
    assert random.metrics["rmse"] > 1.3 * still.metrics["rmse"]


def test_head_is_random_where_the_regression_is_worse_than_the_mean(rows):
    unsettled = conftest.backbone()  # batch norm has the statistics of no data
    values = rows.source("train").targets["value"]
    ids = draw_values(values, Amount("all"), rows, 0)
    y = Values(values[ids]).y
    bound = unsettled.dim**-0.5  # of torch's initial weights
    assert ridge_head(unsettled, rows)(ids, y).weight.abs().max() <= bound
    assert ridge_head(backbone(), rows)(ids, y).weight.abs().max() > bound
    result = finetune(unsettled, rows, baselines=False, **SHORT)
    assert result.details["training"]["run"]["r2"][0] > -1
    assert result.metrics["r2"] > 0


def test_metrics_baselines_and_protocol(rows):
    result = finetune(backbone(), rows, labels=100, seeds=2, **SHORT)
    kinds = ("", "scratch.", "linear.", "boosting.")
    assert {f"{k}{m}{s}" for k in kinds for m in ("rmse", "mae", "r2") for s in ("", "_std")} == set(result.metrics)
    probed = probe(backbone(), rows, labels=100, seeds=2).metrics
    assert result.metrics["linear.rmse"] == probed["linear.rmse"]
    assert result.metrics["rmse"] < probed["rmse"]
    assert result.metrics["rmse"] < result.metrics["scratch.rmse"]
    assert result.protocol["task"] == "value"
    assert result.protocol["splits"] == {"labelled": 100, "test": 60}
    assert set(result.protocol["baselines"]) == {"scratch", "linear", "boosting"}
    assert set(result.details["training"]) == {"run", "scratch"}
    learned = result.details["training"]["run"]["r2"]
    assert learned[-1] > learned[0]
    low, high = result.intervals["rmse_ci95"]
    assert low < result.metrics["rmse"] < high
    json.dumps([result.protocol, result.details])


def test_kept_model_predicts_in_the_unit_of_the_value(rows):
    result = finetune(backbone(), rows, labels=100, baselines=False, **SHORT)
    kept = result.fitted.make()
    assert kept.predicts_value
    assert kept.evaluator == "finetune"
    x, truth = rows.dataset.test.resident.tensor, rows.dataset.test.targets["value"]
    with torch.no_grad():
        predicted = kept.outputs(kept.backbone(x))[:, 0]
    table = torch.tensor([row[3] for row in result.artefacts["values.csv"].rows], dtype=torch.float64)
    assert predicted == pytest.approx(table, abs=1e-4)
    assert float((predicted - truth).square().mean().sqrt()) == pytest.approx(result.metrics["rmse"], rel=1e-4)
    assert kept.protocol["test"]["rmse"] == pytest.approx(result.metrics["rmse"])


def test_objective_is_the_squared_error_of_standardized_values():
    values = torch.tensor([3.0, 5.0, 10.0, 2.0], dtype=torch.float64)
    objective = Values(values)
    _, targets = objective.targets(torch.zeros(2, 6), objective.y[[2, 0]], Recipe(), 0)
    assert targets == pytest.approx((values[[2, 0]] - 5) / 9.5**0.5)
    outputs = torch.tensor([[0.5], [-1.0]])
    squared = [(0.5 - float(targets[0])) ** 2, (-1 - float(targets[1])) ** 2]
    assert objective.loss(outputs, targets, Recipe()).item() == pytest.approx(sum(squared) / 2, rel=1e-6)
    assert objective.score(outputs, targets).tolist() == pytest.approx([1 - s for s in squared], rel=1e-6)
    head = torch.nn.Linear(3, 1)
    z = torch.randn(4, 3)
    before = head(z)
    objective.finish(head)
    assert torch.allclose(head(z), before * 9.5**0.5 + 5, atol=1e-5)
    assert Values(torch.full((3,), 7.0)).y.tolist() == [0, 0, 0]


def test_rate_is_chosen_by_squared_error_on_a_fifth(rows):
    result = finetune(backbone(), rows, labels=100, head="random", baselines=False, **SHORT | {"lr": [1e-9, 1e-2]})
    assert result.protocol["lr"]["used"] == [1e-2]
    few = finetune(backbone(), rows, labels=5, baselines=False, **STILL | {"lr": [1e-9, 1e-2]})
    assert few.protocol["lr"]["used"] == [1e-9]
    assert "too few labels" in few.protocol["lr"]["chosen_by"]


def test_samples_without_a_value_are_not_trained_on(rows):
    whole = dataset()
    whole.train.targets["value"][1::2] = torch.nan
    whole.test.targets["value"][0] = torch.nan
    data = EvalData(whole, untrained=backbone, recipes={"weak": {}})
    result = finetune(backbone(), data, baselines=False, **SHORT)
    assert result.protocol["splits"] == {"labelled": 60, "test": 59}


@pytest.mark.parametrize("wrong", [{"mixup": 0.2}, {"cutmix": 1.0}, {"label_smoothing": 0.1}, {"labels": "5/class"}])
def test_settings_of_classes_are_refused(rows, wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        finetune(backbone(), rows, **SHORT | wrong)


def test_label_curve_has_networks_trained_end_to_end(rows):
    result = curve(backbone(), rows, amounts=[20, "all"], seeds=2, supervised_seeds=1, finetune=True, **SHORT)
    alone = finetune(backbone(), rows, labels=20, seeds=1, **SHORT)
    assert result.metrics["finetuned.rmse@20"] == alone.metrics["rmse"]
    assert result.metrics["supervised.rmse@20"] == alone.metrics["scratch.rmse"]
    assert {"supervised.r2@all", "finetuned.mae@all"} <= set(result.metrics)
    assert "supervised.rmse@20_std" not in result.metrics
    assert result.protocol["trained_seeds"] == 1
    assert result.protocol["supervised"]["20"]["steps"] == 40
    assert {"supervised", "finetuned"} <= set(result.details["curve"])
