"""The label-efficiency curve of a value: its points are those of the probe, and its savings those of the definition."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import nn

from sslcli.errors import RequestError
from sslcli.evals.artefacts.label_curve import LabelCurve
from sslcli.evals.base.features import EvalData
from sslcli.evals.labels import curve
from sslcli.evals.metrics.labels_saved import RMSE, Line, labels_saved, quote, savings
from sslcli.evals.probe import probe
from sslcli.evals.regression.label_curve import Count, choose_counts
from tests.evals.regression.conftest import backbone, dataset


def lines(**baselines: list[float]) -> dict[str, Line]:
    made = {}
    for kind, means in {"": [8.0, 4.0, 2.0], **baselines}.items():
        line = made.setdefault(kind, Line(kind))
        for labels, mean in zip((10, 100, 1000), means, strict=True):
            line.add(str(labels), labels, mean, 0.1, [mean - 0.01, mean + 0.01])
    return made


def test_savings_at_equal_error():
    table = savings(lines(raw=[16.0, 8.0, 4.0]), RMSE)
    assert [row["rmse"] for row in table] == [8.0, 4.0, 2.0]
    assert table[0]["needs"]["raw"] == {"labels": 100.0, "factor": 10.0, "relation": "="}
    assert table[1]["needs"]["raw"]["labels"] == 1000
    assert table[2]["needs"]["raw"]["relation"] == ">"
    assert quote(table, RMSE)["at"] == "100"
    halfway = quote(savings(lines(raw=[16.0, 6.0, 2.0]), RMSE), RMSE)
    assert halfway["needs"] == pytest.approx(100 * 10**0.5, abs=0.1)  # linear in the logarithm of the number of labels


def test_better_baseline_needs_fewer_labels():
    saved = labels_saved(lines(raw=[4.0, 2.0, 1.0]), 0, RMSE)
    assert (saved.quoted["factor"], saved.quoted["certain"]) == (pytest.approx(0.1), True)
    low, high = saved.intervals["labels_saved_ci95"]
    assert low <= saved.metrics["labels_saved"] <= high < 1


def test_errors_are_not_limited_to_one():
    saved = labels_saved(lines(raw=[800.0, 80.0, 8.0]), 0, RMSE)
    assert saved.quoted["relation"] == ">"
    assert saved.metrics["labels_saved_is_bound"] == 1


def test_counts_are_limited_by_the_data():
    counts, notes = choose_counts([50, 10, 1000, "all"], 120)
    assert counts == [Count("10", 10), Count("50", 50), Count("all", 120)]
    assert notes == ["left out: 1000 labels (120 training samples have a value)"]
    assert [c.name for c in choose_counts([10, 120, "all"], 120)[0]] == ["10", "all"]
    for wrong in ([1], [0], ["some"], [True], [], [500]):
        with pytest.raises(RequestError, match="amounts"):
            choose_counts(wrong, 120)


def test_points_are_those_of_the_probe(planes, tmp_path):
    model = backbone()
    result = curve(model, planes, amounts=[10, 40, "all"], seeds=2, supervised=False)
    kinds, amounts = ("", "raw.", "untrained.", "linear.", "boosting."), ("10", "40", "all")
    names = {f"{k}{m}@{n}{s}" for k in kinds for m in ("rmse", "mae", "r2") for n in amounts for s in ("", "_std")}
    assert names <= set(result.metrics) <= names | {"labels_saved", "labels_saved_is_bound"}
    plain = probe(model, planes, labels=40, seeds=2)
    for name in ("rmse", "mae", "r2", "raw.rmse", "untrained.r2", "linear.mae"):
        assert result.metrics[f"{name}@40"] == plain.metrics[name]
        assert result.intervals[f"{name}@40_ci95"] == plain.intervals[f"{name}_ci95"]
    assert result.metrics["linear.rmse@all"] < result.metrics["linear.rmse@10"]
    json.dumps([result.protocol, result.details])
    image = result.artefacts["curve.png"]
    assert image.caption.startswith("RMSE of the predicted value on planes by number of labels")
    image.save(tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as drawn:
        assert drawn.size[0] > 1000


def test_default_numbers_of_labels(planes):
    result = curve(nn.Flatten(), planes, seeds=1, supervised=False)
    assert result.protocol["amounts"] == {"10": 10, "25": 25, "50": 50, "100": 100, "all": 120}
    assert "labels_saved" not in result.metrics  # one draw has no interval
    assert not any("supervised" in note for note in result.protocol["notes"])


def test_caption_states_the_saving():
    made = lines(raw=[16.0, 8.0, 4.0])
    image = LabelCurve(list(made.values()), "x", labels_saved(made, 0, RMSE).quoted, RMSE)
    assert (
        "raw input needs 10 times the labels for what the self-supervised probe reaches with 100 labels (4)"
        in image.caption
    )


def test_refusals_of_a_value(planes):
    with pytest.raises(RequestError, match="augment=weak"):
        curve(backbone(), planes)  # these rows have no augmentation
    with pytest.raises(RequestError, match="labels=100"):
        curve(backbone(), planes, labels=100)


def test_samples_without_a_value_are_not_counted():
    data = dataset()
    data.train.targets["value"][::2] = torch.nan
    result = curve(nn.Flatten(), EvalData(data), amounts=[100, "all"], seeds=1, supervised=False)
    assert result.protocol["amounts"] == {"all": 60}
    assert result.protocol["splits"] == {"train": 120, "labelled": 60, "test": 60}
