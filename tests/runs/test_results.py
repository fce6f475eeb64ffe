"""Results are kept by what was asked: names, files, and what older files are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslcli.runs.results import label_tag, labels_of, make_room, result_name, saved_results
from tests.conftest import SMOKE

PROBE = ["evaluator.strengths=[0.01]", "evaluator.baselines=false", "device=cpu", "device.threads=1"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("all", "probe"),
        ("ALL", "probe"),
        ("100%", "probe"),
        ("5/class", "probe@5-class"),
        ("5 / class", "probe@5-class"),
        (100, "probe@100"),
        ("1%", "probe@1pct"),
        ("0.5 %", "probe@0_5pct"),
    ],
)
def test_result_name_contains_labels(labels, expected):
    assert result_name("probe", labels) == expected
    assert result_name("knn", labels, "cifar100") == expected.replace("probe", "knn@cifar100")


def test_result_name_label_file(tmp_path):
    one, other = tmp_path / "my labels.csv", tmp_path / "sub" / "my labels.csv"
    other.parent.mkdir()
    one.write_text("name,label\na,1\n")
    other.write_text("name,label\na,2\n")
    assert label_tag(str(one)).startswith("my-labels-")
    assert label_tag(str(one)) != label_tag(str(other))  # another question: both are kept
    assert label_tag(str(tmp_path / "../gone.csv")) == "gone"
    assert "/" not in label_tag("x/../y z:*?.csv")


def record(labels: str, value: float = 0.5) -> str:
    return json.dumps({"numbers": {"top1": value}, "protocol": {"labels": labels}})


def test_saved_results_old_file_names(tmp_path):
    """Before names said the labels, eval/probe.json was whatever was measured last."""
    folder = tmp_path / "eval"
    folder.mkdir()
    (folder / "probe.json").write_text(record("5/class"))
    (folder / "probe_confusion.png").write_bytes(b"x")
    (folder / "knn@other.json").write_text(record("1%"))
    (folder / "quality.json").write_text(json.dumps({"numbers": {"rankme": 3.0}, "protocol": {}}))
    found = saved_results(tmp_path)
    assert list(found) == ["knn@other@1pct", "probe@5-class", "quality"]
    assert [k.dataset for k in found.values()] == ["other", "", ""]
    assert [k.labels for k in found.values()] == ["1%", "5/class", "all"]
    assert (tmp_path / found["probe@5-class"].artefact_path("confusion.png")).is_file()
    make_room(tmp_path, "probe")  # before labels=all is written there
    assert sorted(p.name for p in folder.glob("probe*")) == ["probe@5-class.json", "probe@5-class_confusion.png"]
    (folder / "probe.json").write_text(record("all", 0.9))
    assert {
        name: k.record["numbers"]["top1"] for name, k in saved_results(tmp_path).items() if name.startswith("probe")
    } == {**{"probe": 0.9, "probe@5-class": 0.5}}


def test_labels_of_record_without_labels():
    assert labels_of({"protocol": {}, "evaluator": {"labels": "2/class"}}) == "2/class"
    assert labels_of({"protocol": None}) == ""


def test_eval_few_labels_keeps_all_labels_result(cli):
    run = Path(cli("pretrain", *SMOKE).last)
    few = cli("eval", "probe", "labels=2/class", "seeds=2", *PROBE)
    assert few.out.startswith("probe.top1 ")  # as ever, for scripts
    assert "saved as probe@2-class" in few.err
    every = cli("eval", "probe", *PROBE, "--json")
    assert {k: json.loads(every.out)[k] for k in ("eval", "result")} == {"eval": "probe", "result": "probe"}
    assert {p.name for p in (run / "eval").glob("*.json")} == {"probe.json", "probe@2-class.json"}
    again = cli("eval", "probe", "labels=2/class", "seeds=2", "evaluator.strengths=[0.1]", *PROBE[1:])
    assert "it replaces the result with strengths=[0.01]" in again.err

    shown = json.loads(cli("runs", "show", "latest", "--json").out)
    assert [(r["evaluator"], r["labels"]) for r in shown["results"]] == [("probe", "all"), ("probe", "2/class")]
    numbers = shown["numbers"]
    assert numbers["probe.top1"] == json.loads(every.out)["numbers"]["top1"] > numbers["probe@2-class.top1"]
    listed = cli("runs").out
    assert f"probe.top1 {numbers['probe.top1']:.2f}"[:-1] in listed
    assert "probe@2-class.top1" in listed
    assert cli("runs", "best", "probe.top1", "--json").out != cli("runs", "best", "probe@2-class.top1", "--json").out

    page = (run / "report.html").read_text() if cli("runs", "report", "latest").code == 0 else ""
    assert "Linear probe, 2 labels a class" in page
    for file in (run / "eval").glob("probe_*"):
        file.unlink()
    (run / "eval" / "probe.json").unlink()
    assert (
        cli("runs", "report", "latest").code == 0
    )  # the map shows what few labels predict, where there is nothing else
    assert '"predicted_by":"Linear probe"' in (run / "report.html").read_text().replace(": ", ":")
    assert "eval probe run=" in page
    assert "labels=2/class" in page
