"""Points of a label-efficiency curve: kept as soon as they are measured, and reused where nothing that they depend on differs."""

from __future__ import annotations

import json
from functools import partial

import pytest

from sslcli.evals import labels
from sslcli.evals.base.features import EvalData
from sslcli.evals.label_efficiency.points import FILE, CurvePoints
from sslcli.evals.regression import label_curve
from tests.evals import learners
from tests.evals.regression import conftest as values

SETTINGS = {"amounts": [1, "all"], "seeds": 1, "supervised_seeds": 2, "min_steps": 1, "epochs": 1, "augment": "weak"}


def data(folder=None, rows=None, **given) -> EvalData:
    rows = rows or learners.dataset(12, 12)
    cache = None if folder is None else folder / "cache"
    return EvalData(rows, untrained=learners.Net, recipes={"weak": {}}, cache=cache, **given)


def value(calls: list[str], name: str) -> dict[str, object]:
    calls.append(name)
    return {"top1": 0.1 + len(calls), "draws": [1 / 3]}


def measured(points: CurvePoints, *names: str) -> tuple[list[dict[str, object]], list[str]]:
    """The values of points by name, and the names of those that were measured now."""
    calls: list[str] = []
    values = points.measure("points", [({"model": name}, partial(value, calls, name)) for name in names])
    return values, calls


@pytest.fixture
def net():
    return learners.Net(5)


def test_an_interrupted_curve_continues(tmp_path, monkeypatch, capsys, net):
    original, calls = labels.measure, []

    def counted(*given):
        calls.append(given)
        return original(*given)

    def interrupted(*given):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counted(*given)

    monkeypatch.setattr(labels, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        labels.curve(net, data(tmp_path), **SETTINGS)
    said = capsys.readouterr().err
    assert "supervised: 4 trainings (training from scratch; 2 numbers of labels x 2 draws)" in said
    assert f"kept 5 points of the curve in {tmp_path / 'cache' / FILE}" in said  # two of the probe, three trainings
    assert f"sslcli eval labels run={tmp_path}` with the same settings continues" in said
    monkeypatch.setattr(labels, "measure", counted)
    continued = labels.curve(net, data(tmp_path), **SETTINGS)
    assert len(calls) == 4
    assert "probe, number of labels: 2 of 2 points were measured before" in capsys.readouterr().err
    whole = labels.curve(net, data(), **SETTINGS)
    assert len(calls) == 8
    assert continued.metrics == whole.metrics
    assert continued.intervals == whole.intervals
    assert json.dumps([continued.protocol, continued.details]) == json.dumps([whole.protocol, whole.details])


def test_equal_settings_alone_share_a_point(tmp_path, net):
    first, calls = measured(CurvePoints(net, data(tmp_path)), "a", "b")
    assert calls == ["a", "b"]
    second, calls = measured(CurvePoints(net, data(tmp_path)), "b", "c", "a")
    assert calls == ["c"]
    assert (second[0], second[2]) == (first[1], first[0])
    other_labels = learners.dataset(12, 12)
    other_labels.train.labels = 1 - other_labels.train.labels
    others = {
        "weights": (learners.Net(6), data(tmp_path)),
        "labels": (net, data(tmp_path, other_labels)),
        "draws": (net, data(tmp_path, seed=1)),
        "views": (
            net,
            EvalData(learners.dataset(12, 12), cache=tmp_path / "cache", recipes={"weak": {"flip": {"p": 1}}}),
        ),
    }
    for what, given in others.items():
        assert measured(CurvePoints(*given), "a")[1] == ["a"], what


def test_damaged_and_foreign_points_are_measured_again(tmp_path, net):
    measured(CurvePoints(net, data(tmp_path)), "a", "b")
    file = tmp_path / "cache" / FILE
    forged, whole = file.read_text().splitlines()
    record = json.loads(forged)
    record["value"]["top1"] = 1.0
    file.write_text(f"{json.dumps(record)}\n[]\n{whole}\n{whole[:40]}")
    assert measured(CurvePoints(net, data(tmp_path)), "a", "b")[1] == ["a"]


def test_points_without_a_run_folder_are_not_kept(capsys, net):
    points = CurvePoints(net, data())
    measured(points, "a")
    with pytest.raises(KeyboardInterrupt), points.reported():
        raise KeyboardInterrupt
    assert "kept" not in capsys.readouterr().err
    assert measured(CurvePoints(net, data()), "a")[1] == ["a"]


def test_a_continued_curve_of_a_value_equals_a_whole_one(tmp_path, monkeypatch):
    def curve(folder):
        rows = EvalData(values.dataset(), untrained=values.backbone, recipes={"weak": {}}, cache=folder)
        rows.field_baselines = {}  # gradient boosting takes a while
        short = {"epochs": 1, "min_steps": 1, "augment": "weak"}
        return labels.curve(values.backbone(1), rows, amounts=[20], seeds=1, supervised_seeds=2, **short)

    original, calls = label_curve.measure_values, []

    def counted(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(label_curve, "measure_values", counted)
    with pytest.raises(KeyboardInterrupt):
        curve(tmp_path / "cache")
    continued, whole = curve(tmp_path / "cache"), curve(None)
    assert len(calls) == 2 + 1 + 2
    assert continued.metrics == whole.metrics
    assert continued.intervals == whole.intervals
    assert json.dumps([continued.protocol, continued.details]) == json.dumps([whole.protocol, whole.details])
