"""What probe and finetune hand over to be kept.

1. The layer predicts what the evaluator predicted; the temperature is fitted without the test split and without the kept model.
2. `ece` and `ece_uncalibrated` are those of the first draw; in cross-validation, of all labeled samples together.
3. Calibration changes no other number.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sslcli.evals.base.cross_validation import cross_validated
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.fit.calibrated_probe import held_out_temperature
from sslcli.evals.fit.linear_probe import fit_linear_probe
from sslcli.evals.inputs.label_subsets import draw, parse
from sslcli.evals.metrics import calibration
from sslcli.evals.probe import probe
from sslcli.evals.regression.values import all_values
from tests.evals import learners, toys
from tests.evals.base.test_cross_validation import few
from tests.evals.regression import conftest as planes

RECIPE = {"epochs": 0, "min_steps": 40, "augment": "weak", "baselines": False}
CALIBRATION = {"ece", "ece_uncalibrated"}


def slow_ece(p: torch.Tensor, right: torch.Tensor) -> float:
    confidence, hits = p.max(dim=1).values.double().numpy(), right.double().numpy()
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        error += abs(hits[inside].sum() - confidence[inside].sum()) / len(hits)
    return error


def test_probe_keeps_the_first_draw(data):
    backbone = toys.Rows()
    result = probe(backbone, data, labels="10/class", seeds=2, baselines=False)
    classifier = result.fitted.make()
    x, y = data.features(backbone, "test")
    p = classifier.probabilities(x)
    assert torch.equal(p.argmax(dim=1), result.artefacts["predictions.safetensors"].predicted[0])
    assert result.metrics["ece"] == pytest.approx(slow_ece(p, p.argmax(dim=1) == y), abs=1e-6)
    plain = torch.softmax(classifier.outputs(x), dim=1)
    assert result.metrics["ece_uncalibrated"] == pytest.approx(slow_ece(plain, plain.argmax(dim=1) == y), abs=1e-6)
    train, labels = data.features(backbone, "train")
    ids = draw(labels, parse("10/class"), data.seed, 0, data.dataset.classes)
    head = fit_linear_probe(train, labels, parse("10/class"), data.seed, data.dataset.classes)
    assert classifier.temperature == held_out_temperature(train, labels, ids, head, data).value
    assert classifier.protocol["temperature"] == result.fitted.temperature
    assert classifier.classes == ("row 0", "row 1", "row 2")
    assert classifier.reference.features.shape == (240, 8)
    assert classifier.protocol["splits"] == {"labelled": 30, "test": 120}
    assert "30 labelled training samples" in classifier.protocol["temperature"]
    without = probe(backbone, data, labels="10/class", seeds=2, baselines=False, calibrate=False)
    assert without.metrics == {k: v for k, v in result.metrics.items() if k not in CALIBRATION}
    assert without.fitted.make().temperature == 1.0


def test_probe_of_a_value_keeps_its_layer():
    backbone, data = planes.backbone(), EvalData(planes.dataset())
    result = probe(backbone, data, baselines=False, seeds=2, labels=60)
    classifier = result.fitted.make()
    x, _ = data.features(backbone, "test")
    y = all_values(data, "test")[data.ids("test")]
    errors = (classifier.outputs(x)[:, 0] - y).abs()
    assert classifier.predicts_value
    assert float(errors.mean()) == pytest.approx(result.details["draws"]["mae"][0])
    assert classifier.protocol["test"]["mae"] == pytest.approx(result.details["draws"]["mae"][0])


def test_cross_validation_keeps_a_probe_of_all_labels():
    rows, backbone = few(), toys.Rows().eval()
    data = EvalData(rows, untrained=toys.Blind)
    result = cross_validated(partial(probe, strengths=0.1), backbone, data, 1)
    found = result.artefacts["predictions.safetensors"]
    p = found.probability[0][:, None]
    assert result.metrics["ece_uncalibrated"] == pytest.approx(
        slow_ece(p, found.predicted[0] == found.y_true), abs=1e-6
    )
    classifier = result.fitted.make()
    x = torch.cat([data.features(backbone, s)[0] for s in ("train", "test")])
    y = torch.cat([rows.train.labels, rows.test.labels])
    head = fit_linear_probe(x, y, parse("all"), 0, strength=0.1)
    torch.testing.assert_close(classifier.outputs(x), head.logits(x).double(), atol=1e-4, rtol=1e-4)
    assert classifier.protocol["test"]["top1"] == result.metrics["top1"]
    assert classifier.protocol["tested_by"] == "cross-validation over 5 folds"


def test_finetune_keeps_the_model_of_the_first_draw():
    data, shuffled = learners.data(), learners.dataset()
    shuffled.test.labels = 1 - shuffled.test.labels
    result = finetune(learners.Net(3), data, labels="60/class", **RECIPE)
    classifier = result.fitted.make()
    x = torch.cat([x for _, x in data.batches("test")])
    with torch.no_grad():
        p = classifier.probabilities(classifier.backbone(x))
    assert torch.equal(p.argmax(dim=1), result.artefacts["predictions.safetensors"].predicted[0])
    assert result.metrics["ece"] == pytest.approx(slow_ece(p, p.argmax(dim=1) == data.labels("test")), abs=1e-6)
    assert classifier.temperature != 1.0
    assert "24 labelled training samples" in classifier.protocol["temperature"]
    other = finetune(learners.Net(3), learners.data(shuffled), labels="60/class", **RECIPE)
    assert other.fitted.make().temperature == classifier.temperature
    plain = finetune(learners.Net(3), learners.data(), labels="60/class", calibrate=False, **RECIPE)
    assert plain.metrics == {k: v for k, v in result.metrics.items() if k not in CALIBRATION}
    assert torch.equal(plain.fitted.make().weight, classifier.weight)


def test_equal_probabilities_are_warned_of(data, monkeypatch, capsys):
    """Held-out predictions at chance have the largest temperature."""
    probe(toys.Rows(), data, labels="3/class", seeds=1, baselines=False)
    assert "no better than chance" not in capsys.readouterr().err
    flat = calibration.Temperature(1e6, 9, 1e6)
    monkeypatch.setattr("sslcli.evals.metrics.calibration.choose_temperature", lambda *_: flat)
    probe(toys.Rows(), data, labels="3/class", seeds=1, baselines=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "held-out predictions of 9 labeled training samples are no better than chance" in said


def test_finetune_calibrates_with_the_training_that_chose_the_rate(monkeypatch):
    from sslcli.evals.finetuning import training

    fits = []
    fit = training._Training.fit
    monkeypatch.setattr(
        training._Training, "fit", lambda self, ids, *rest: (fits.append(len(ids)), fit(self, ids, *rest))[1]
    )
    options = {"labels": "10/class", "epochs": 0, "min_steps": 5, "augment": "weak", "baselines": False}
    finetune(learners.Net(3), learners.data(), lr=[1e-3, 1e-2], **options)
    assert fits == [16, 16, 20]
    fits.clear()
    finetune(learners.Net(3), learners.data(), seeds=2, **options)
    assert fits == [16, 20, 20]
    fits.clear()
    one = finetune(learners.Net(3), learners.data(), **{**options, "labels": "1/class"})
    assert fits == [2]
    assert one.fitted.make().protocol["temperature"] == "1: too few labels, in all or of a class, to hold any out"
