"""Balanced weights of classes in the evaluators that fit a probe among other things."""

from __future__ import annotations

import pytest

from sslcli.data.dataset import Dataset
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.explain import explain
from sslcli.evals.labels import curve
from sslcli.evals.probe import probe
from sslcli.evals.robustness import robustness
from sslcli.evals.transfer import transfer
from tests.evals import toys
from tests.evals.classifier.test_class_weight import imbalanced_images

SPLITS = imbalanced_images(), imbalanced_images(seed=1)


@pytest.fixture
def data():
    dataset = Dataset("rows", "image", (1, 8, 8), *SPLITS, ("usual", "rare"))
    return EvalData(dataset, untrained=lambda seed=0: toys.Blind(), trained_on="others", recipes={"weak": {}})


@pytest.fixture
def weighted(data):
    return probe(toys.Rows(), data, class_weight="balanced", calibrate=False).metrics


def test_label_curve_with_balanced_weights_is_that_of_the_probe(data, weighted):
    result = curve(toys.Rows(), data, amounts=[2, "all"], seeds=1, supervised=False, class_weight="balanced")
    usual = curve(toys.Rows(), data, amounts=[2, "all"], seeds=1, supervised=False)
    for kind in ("", "raw.", "untrained."):
        assert result.metrics[f"{kind}top1@all"] == weighted[f"{kind}top1"]
        assert result.metrics[f"{kind}balanced_top1@all"] == weighted[f"{kind}balanced_top1"]
    assert result.metrics["balanced_top1@all"] > usual.metrics["balanced_top1@all"]
    assert result.metrics["top1@2"] == usual.metrics["top1@2"]  # as many of each class
    assert (result.protocol["class_weight"], usual.protocol["class_weight"]) == ("balanced", None)


def test_label_curve_trains_networks_with_the_weights(data):
    settings = {"amounts": ["all"], "seeds": 1, "supervised_seeds": 1, "epochs": 1, "min_steps": 4, "augment": "weak"}
    weighted = curve(toys.Rows(), data, class_weight="balanced", **settings)
    usual = curve(toys.Rows(), data, **settings)
    assert weighted.protocol["supervised"]["all"]["class_weight"] == "balanced"
    assert usual.protocol["supervised"]["all"]["class_weight"] is None
    assert {"supervised.balanced_top1@all", "supervised.top1@all"} <= set(weighted.metrics)


def test_weights_without_effect_on_a_curve_are_noted(data, capsys):
    result = curve(toys.Rows(), data, amounts=[2], seeds=1, supervised=False, class_weight="balanced")
    assert any("class_weight=balanced has no effect" in note for note in result.protocol["notes"])
    assert "evaluator.amounts=[10,all]" in capsys.readouterr().err


def test_transfer_weights_the_probe_alone(data, weighted):
    result = transfer(toys.Rows(), data, class_weight="balanced")
    usual = transfer(toys.Rows(), data)
    assert result.metrics["probe.balanced_top1"] == weighted["balanced_top1"]
    assert result.metrics["knn.top1"] == usual.metrics["knn.top1"]
    assert result.protocol["class_weight"] == "balanced"
    assert "class_weight" not in result.protocol["probe"]
    assert any("k-NN is not weighted" in note for note in result.protocol["notes"])


def test_robustness_weights_the_probes(data, weighted):
    few = {"corruptions": ["gaussian_noise"], "attack_samples": 0}
    result = robustness(toys.Rows(), data, class_weight="balanced", **few)
    usual = robustness(toys.Rows(), data, **few)
    for kind in ("", "raw.", "untrained."):
        assert result.metrics[f"{kind}clean.balanced_top1"] == pytest.approx(weighted[f"{kind}balanced_top1"])
    assert usual.metrics["clean.balanced_top1"] < result.metrics["clean.balanced_top1"]
    assert 0 < result.metrics["corrupted.balanced_top1"] <= 1
    assert result.protocol["class_weight"] == "balanced"


def test_explain_weights_the_probe_or_refuses(data):
    few = {"samples": 10, "baselines": False}
    result = explain(toys.Rows(), data, class_weight="balanced", **few)
    assert result.protocol["class_weight"] == "balanced"
    assert result.metrics["deletion"] != explain(toys.Rows(), data, **few).metrics["deletion"]
    with pytest.raises(RequestError, match="class_weight=balanced has no effect: the similarity"):
        explain(toys.Rows(), data, class_weight="balanced", target="neighbour", **few)
    for evaluator in (explain, robustness, transfer, curve):
        with pytest.raises(RequestError, match="class_weight=equal: expected balanced or null"):
            evaluator(toys.Rows(), data, class_weight="equal")
