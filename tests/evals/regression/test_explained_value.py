"""Attribution of a predicted value: columns that move it count, by the distance of the prediction from the mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslcli.backbones.mlp import MLP
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.explain import explain, make_score
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.probe import probe
from tests.evals.regression.conftest import backbone, dataset


class Columns(MLP):
    """The columns themselves as features."""

    def forward(self, x):
        return x.nan_to_num()

    dim = 6


def test_score_is_the_distance_of_the_prediction_from_the_mean():
    data = EvalData(dataset())
    model = nn.Flatten()
    score = make_score(model, data, "value", Amount("count", 80))
    x = data.dataset.test.resident.tensor
    probed = probe(model, data, labels=80)
    predicted = torch.tensor([row[3] for row in probed.artefacts["values.csv"].rows])
    target = score.target(x)
    assert (target * score.std + score.mean).tolist() == pytest.approx(predicted.tolist(), rel=1e-4)
    assert torch.equal(score.evaluate(x, target), target.abs())
    assert score.evaluate(x.flip(0), target)[0].item() == pytest.approx(
        target[-1].item() * target[0].sign().item(), rel=1e-4
    )
    assert score.titles(target)[0] == f"{float(target[0]) * score.std + score.mean:.4g}"


def test_columns_that_move_the_value_count_most():
    data = EvalData(dataset(), untrained=backbone)
    result = explain(Columns((6,), width=6, values=data.dataset.values).eval(), data, samples=40)
    ranking = result.details["positions"]["backbone"]
    assert [row["name"] for row in ranking[:2]] == ["column 1", "column 2"]
    assert ranking[1]["importance"] > 10 * ranking[2]["importance"]
    assert result.metrics["deletion"] < result.metrics["random.deletion"]
    assert result.metrics["insertion"] > result.metrics["random.insertion"]
    assert "ridge regression (labels all)" in result.protocol["target"]


def test_targets_of_other_tasks_are_refused():
    with pytest.raises(RequestError, match="planes has a value to predict"):
        explain(backbone(), EvalData(dataset()), target="class")
