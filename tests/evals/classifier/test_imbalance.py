"""Balanced accuracy, and the accuracy of always predicting the most frequent class."""

from __future__ import annotations

import random

import pytest
import torch

from sslcli.evals.artefacts.predictions import FILE, Predictions
from sslcli.evals.base.result import Result
from sslcli.evals.classifier.imbalance import add_imbalance
from tests.conftest import SMOKE


def classified(y, *draws) -> Result:
    y, predicted = torch.tensor(y), torch.tensor(draws)
    top1 = float((predicted == y).double().mean())
    return Result({"top1": top1}, artefacts={FILE: Predictions(torch.arange(len(y)), y, predicted)})


def test_balanced_accuracy_is_the_mean_recall():
    result = classified([0] * 8 + [1] * 2, [0] * 8 + [1, 0], [0] * 6 + [1] * 4)
    assert add_imbalance(result, ("stay", "leave")) == ""
    assert result.protocol["baselines"] == {"majority": {"note": "always predicts stay"}}
    assert result.metrics == {
        "top1": pytest.approx(0.85),
        "balanced_top1": pytest.approx((0.75 + 0.875) / 2),
        "balanced_top1_std": pytest.approx(0.125 / 2**0.5),
        "majority.top1": 0.8,
    }


def test_accuracy_of_the_most_frequent_class_is_said_to_be_no_better():
    result = classified([0] * 8 + [1] * 2, [0] * 10)
    assert add_imbalance(result, ("stay", "leave")) == (
        "accuracy 0.800 is no better than always predicting stay, which is right for 0.800"
    )
    assert result.metrics["balanced_top1"] == 0.5


@pytest.mark.parametrize("y", [[0, 1] * 5, [0] * 7 + [1] * 3, [0] * 10])
def test_classes_of_similar_size_have_accuracy_alone(y):
    result = classified(y, [0] * 10)
    assert add_imbalance(result, ()) == ""
    assert set(result.metrics) == {"top1"}


def test_evaluations_report_it(cli, tmp_path):
    numbers = random.Random(0)
    rows = [f"{numbers.random():.3f},{numbers.random():.3f},{'leave' if i % 10 == 0 else 'stay'}" for i in range(300)]
    (tmp_path / "rows.csv").write_text("a,b,label\n" + "\n".join(rows) + "\n")
    made = cli("pretrain", *SMOKE, "dataset=table", "dataset.path=rows.csv", "method=scarf", "backbone=mlp")
    assert made.code == 0, made.err
    for evaluator in ("probe", "knn"):
        found = cli("eval", evaluator, "device=cpu", "evaluator.baselines=false")
        assert found.code == 0, found.err
        assert f"{evaluator}.balanced_top1 0.5" in found.out
        assert f"{evaluator}.majority.top1 0.9" in found.out
        assert "is no better than always predicting stay" in found.err
