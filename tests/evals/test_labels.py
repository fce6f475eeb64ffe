from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.label_curve import LabelCurve, styles
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetune import finetune
from sslcli.evals.labels import Step, choose, curve
from sslcli.evals.metrics.labels_saved import Line, Needed, holds_one, least, needed, quote, saving_interval, savings
from sslcli.evals.probe import probe
from tests.evals import learners, toys

QUICK = {"amounts": [1, 5, "all"], "seeds": 2, "epochs": 0, "min_steps": 10, "augment": "weak"}


@pytest.mark.parametrize(
    ("points", "accuracy", "expected"),
    [
        ([(10, 0.5), (1000, 0.9)], 0.7, Needed(100.0, "=")),  # half the way, in the logarithm
        ([(10, 0.5), (1000, 0.9)], 0.6, Needed(10 * 10**0.5, "=")),
        ([(10, 0.5), (100, 0.8), (1000, 0.9)], 0.8, Needed(100.0, "=")),
        ([(10, 0.5), (100, 0.8), (1000, 0.9)], 0.95, Needed(1000, ">")),  # never
        ([(10, 0.5), (100, 0.8)], 0.5, Needed(10, "=")),
        ([(10, 0.5), (100, 0.8)], 0.4, Needed(10, "<=")),
        ([(10, 0.5)], 0.6, Needed(10, ">")),
        ([(10, 0.5), (100, 0.4), (1000, 0.8), (2000, 0.3)], 0.6, Needed(10 ** (2 + 0.5), "=")),  # the first time
        ([(10, 0.5), (100, 0.5), (1000, 0.5)], 0.5, Needed(10, "=")),
    ],
)
def test_labels_needed_of_known_cases(points, accuracy, expected):
    found = needed(points, accuracy)
    assert found.relation == expected.relation
    assert found.labels == pytest.approx(expected.labels)


def test_labels_needed_matches_numpy_interpolation():
    np = pytest.importorskip("numpy")
    points = [(3, 0.1), (17, 0.4), (90, 0.45), (1437, 0.99)]
    for accuracy in (0.11, 0.3, 0.41, 0.6, 0.98):
        expected = np.exp(np.interp(accuracy, [a for _, a in points], np.log([n for n, _ in points])))
        assert needed(points, accuracy).labels == pytest.approx(expected)


def test_best_baseline_needs_the_fewest_labels():
    assert least({"raw": Needed(90, "="), "supervised": Needed(70, "=")}) == "supervised"
    assert least({"raw": Needed(90, ">"), "supervised": Needed(90, "=")}) == "supervised"
    assert least({"raw": Needed(90, ">"), "supervised": Needed(900, "=")}) == "raw"  # all that can be said of it


def lines(**baselines):
    made = {}
    for kind, means in {"": [0.6, 0.9, 0.97], **baselines}.items():
        line = made.setdefault(kind, Line(kind))
        for name, labels, mean in zip(("1", "10", "all"), (10, 100, 1000), means, strict=False):
            line.add(name, labels, mean, 0.01)
    return made


def test_savings_of_known_case():
    table = savings(lines(raw=[0.3, 0.6, 0.9], supervised=[0.5, 0.8, 0.99]))
    assert [row["amount"] for row in table] == ["1", "10", "all"]
    assert table[0]["needs"]["raw"] == {"labels": 100.0, "factor": 10.0, "relation": "="}
    assert table[1]["needs"]["raw"]["factor"] == pytest.approx(10.0)
    supervised = 100 * 10 ** (0.1 / 0.19)
    assert table[1]["needs"]["supervised"]["factor"] == pytest.approx(supervised / 100)
    assert table[1]["best"] == "supervised"
    assert table[2]["needs"]["raw"] == {"labels": 1000, "factor": 1.0, "relation": ">"}
    quoted = quote(table)
    assert (quoted["at"], quoted["baseline"], quoted["relation"]) == ("10", "supervised", "=")
    assert quoted["factor"] == pytest.approx(supervised / 100)
    worse = quote(savings(lines(supervised=[0.95, 0.99, 1.0])))
    assert (worse["factor"], worse["relation"]) == (0.1, "<=")  # pretraining does not pay, and that is said
    never = quote(savings(lines(raw=[0.1, 0.2, 0.3])))
    assert (never["factor"], never["relation"]) == (10.0, ">")
    assert quote(savings(lines())) is None


def drawn(spread: float, seeds: int = 5, **baselines) -> dict[str, Line]:
    """The same lines with draws that scatter by `spread`."""
    made = lines(**baselines)
    offsets = torch.linspace(-1, 1, seeds).tolist() if seeds > 1 else [0.0]
    for i, line in enumerate(made.values()):
        line.draws = [[m + spread * offsets[(j + i) % seeds] for j in range(seeds)] for m in line.mean]
    return made


def test_labels_saved_has_an_interval():
    few = {"raw": [0.3, 0.6, 0.9], "supervised": [0.5, 0.8, 0.99]}  # the factor is 3.36
    low, high = saving_interval(drawn(0.002, **few), 0)
    assert 3.2 < low < 3.36 < high < 3.51
    wide = saving_interval(drawn(0.1, **few), 0)
    assert wide[0] < 1
    assert wide[1] is None or wide[1] > 3
    assert (holds_one(wide), holds_one((low, high))) == (True, False)
    assert saving_interval(drawn(0.002, seeds=3, **few), 0)[1] > high  # fewer draws say less
    assert saving_interval(drawn(0.1, seeds=1, **few), 0) is None
    assert holds_one(None)
    never = saving_interval(drawn(0.002, raw=[0.1, 0.2, 0.3]), 0)
    assert never == (10.0, None)  # a bound has an open end
    assert not holds_one(never)
    assert holds_one((0.5, None))


def test_labels_saved_is_omitted_if_not_significant():
    result = curve(toys.Rows(), EvalData(toys.dataset(), untrained=toys.Rows), **QUICK | {"supervised": False})
    assert "labels_saved" not in result.metrics
    assert "labels_saved_ci95" not in result.intervals
    assert any("labels_saved is left out" in note for note in result.protocol["notes"])
    assert "these draws of labels do not show whether" in result.artefacts["curve.png"].caption
    single = curve(
        toys.Rows(), EvalData(toys.dataset(), untrained=toys.Blind), **QUICK | {"supervised": False, "seeds": 1}
    )
    assert "labels_saved" not in single.metrics
    assert any("has no interval, as there is one draw" in note for note in single.protocol["notes"])


def test_amounts_are_limited_by_the_data():
    y = torch.tensor([0] * 12 + [1] * 30 + [-1] * 5)
    steps, notes = choose([1, 10, 25, "all"], y)
    assert steps == [Step("1/class", "1", 2), Step("10/class", "10", 20), Step("all", "all", 42)]
    assert notes == ["left out: 25 a class (the smallest has 12)"]
    even, notes = choose([2, 5, "all"], torch.tensor([0, 1] * 5))
    assert [s.name for s in even] == ["2", "all"]  # five a class are all
    assert "left out: 5" in notes[0]
    for wrong in ([0], [-1], ["some"], [True], [], [100]):
        with pytest.raises(RequestError, match="amounts"):
            choose(wrong, y)


def test_label_curve_metrics_and_artefacts(tmp_path):
    data, backbone = learners.data(learners.dataset(60, 40)), learners.Net(5)
    result = curve(backbone, data, finetune=True, supervised_seeds=2, **QUICK)
    kinds, amounts = ("", "raw.", "untrained.", "supervised.", "finetuned."), ("1", "5", "all")
    names = {f"{kind}top1@{n}{std}" for kind in kinds for n in amounts for std in ("", "_std")}
    quoted = result.details["quoted"]
    saved = {"labels_saved", "labels_saved_is_bound"} if quoted["certain"] else set()
    assert set(result.metrics) == names | saved
    assert len(quoted["interval"]) == 2
    assert {n for n in names if not n.endswith("_std")} == {k.removesuffix("_ci95") for k in result.intervals} - saved
    assert all(len(draws) == 2 for line in result.details["curve"].values() for draws in line["draws"])
    plain = probe(backbone, data, labels="5/class", seeds=2)
    assert result.metrics["top1@5"] == plain.metrics["top1"]
    assert result.metrics["raw.top1@5"] == plain.metrics["raw.top1"]
    tuned = finetune(backbone, data, labels="5/class", seeds=2, epochs=0, min_steps=10, augment="weak")
    assert result.metrics["finetuned.top1@5"] == tuned.metrics["top1"]
    assert result.metrics["supervised.top1@5_std"] == tuned.metrics["scratch.top1_std"]
    json.dumps([result.protocol, result.details])
    assert result.details["quoted"]["at"] == "5"
    assert len(result.details["labels_saved"]) == 3
    image = result.artefacts["curve.png"]
    assert "self-supervised" in image.caption
    image.save(tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size[0] > 1000
    assert all(math.isfinite(v) for v in result.metrics.values())


def test_curves_of_baselines_differ_in_style():
    kinds = ["", "untrained", "raw", "linear", "boosting", "nearest_neighbor"]
    looks = [styles(kinds)[kind] for kind in kinds]
    assert [words for words, *_ in looks[3:]] == ["linear", "boosting", "nearest neighbor"]
    assert len({(color, marker, dashes) for _, color, marker, dashes in looks}) == len(kinds)


def test_label_curve_reports_omissions():
    data = EvalData(toys.dataset(), recipes={"weak": {}})  # itself untrained
    result = curve(toys.Rows(), data, **QUICK)
    assert not any(name.startswith(("supervised", "untrained")) for name in result.metrics)
    assert any("no supervised baseline" in note for note in result.protocol["notes"])
    with pytest.raises(RequestError, match="labels=10/class") as error:
        curve(toys.Rows(), data, labels="10/class")
    assert "evaluator.amounts" in error.value.hint
    with pytest.raises(RequestError, match="seeds=0"):
        curve(toys.Rows(), data, supervised_seeds=0)
    with pytest.raises(RequestError, match="augment=global"):
        curve(toys.Rows(), data, augment="weak+global")
    rows = toys.dataset()
    rows.train.labels = None
    with pytest.raises(DataError, match="no labels"):
        curve(toys.Rows(), EvalData(rows), supervised=False)


def test_label_curve_caption_states_the_saving(tmp_path):
    made = lines(raw=[0.3, 0.6, 0.9], supervised=[0.5, 0.8, 0.99])
    quoted = quote(savings(made))
    image = LabelCurve(list(made.values()), "a $set", quoted)
    assert "supervised from scratch needs 3.36 times the labels" in image.caption
    image.save(tmp_path / "x.png")
    assert "does not reach with 10 times" in LabelCurve([], "x", {**quoted, "relation": ">", "factor": 10}).saving()
    assert "at most 0.1 times" in LabelCurve([], "x", {**quoted, "relation": "<=", "factor": 0.1}).saving()
