"""Results of other weights than a run has now are marked with their step, and are neither ranked nor compared.

1. By the SHA-256 of the weights, or by the step where a record of an earlier version lacks it.
2. `runs`, `runs show`, `runs best` and `runs compare`.
3. The report of a run and of a sweep.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sslcli.report.write import write_report
from sslcli.runs import records
from sslcli.runs.results import is_outdated

CONFIG = (
    "method: {_target_: sslcli.methods.simclr.SimCLR}\ndataset: {name: digits}\nseed: 0\n"
    "train: {epochs: 10, batch_size: 128}\n"
)


def make_run(path: Path, step: int, results: dict[str, tuple[int, float]], status: str = "done") -> Path:
    """A run whose weights are of `step`, with the step and top-1 accuracy of each result."""
    (path / "eval").mkdir(parents=True)
    (path / "status.json").write_text(json.dumps({"status": status, "step": step, "created": path.name}))
    (path / "config.yaml").write_text(CONFIG)
    (path / "metrics.jsonl").write_text(json.dumps({"step": step, "epoch": step / 11}) + "\n")
    (path / "encoder.json").write_text(json.dumps({"step": step, "sha256": f"weights {step}"}))
    for name, (evaluated, top1) in results.items():
        record = {"numbers": {"top1": top1}, "protocol": {}, "step": evaluated, "sha256": f"weights {evaluated}"}
        (path / "eval" / f"{name}.json").write_text(json.dumps(record))
    return path


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text()))


@pytest.mark.parametrize(
    ("record", "encoder", "expected"),
    [
        ({"sha256": "a", "step": 1}, {"sha256": "b", "step": 1}, True),
        ({"sha256": "a", "step": 1}, {"sha256": "a", "step": 2}, False),
        ({"step": 1}, {"sha256": "a", "step": 2}, True),
        ({"sha256": "", "step": 2}, {"sha256": "a", "step": 2}, False),
        ({"step": 1}, {}, False),
    ],
)
def test_outdated_by_hash_or_step(record, encoder, expected):
    assert is_outdated(record, encoder) is expected


def test_show_and_list_mark_outdated_results(cli, tmp_path):
    make_run(tmp_path / "runs" / "a", 110, {"probe": (22, 0.41), "knn": (110, 0.5)})
    shown = cli("runs", "show", "a")
    assert "probe.top1 0.41 (step 22, other weights)" in shown.out.splitlines()
    assert "knn.top1 0.5" in shown.out.splitlines()
    assert "sslcli eval probe run=a" in shown.err
    assert "(step 22, other weights)" in cli("runs").out
    as_json = json.loads(cli("runs", "show", "a", "--json").out)
    assert (as_json["numbers"], as_json["earlier"]["steps"]) == ({"knn.top1": 0.5}, {"probe.top1": 22})
    assert [(r["name"], r["step"], r["outdated"]) for r in as_json["results"]] == [
        ("knn", 110, False),
        ("probe", 22, True),
    ]


def test_best_ranks_current_results_only(cli, tmp_path):
    make_run(tmp_path / "runs" / "a", 110, {"probe": (22, 0.9)})
    refused = cli("runs", "best", "probe.top1")
    assert refused.code == 2
    assert "sslcli eval probe run=a" in refused.err
    make_run(tmp_path / "runs" / "b", 110, {"probe": (110, 0.5)})
    make_run(tmp_path / "runs" / "c", 40, {"probe": (40, 0.4)}, status="interrupted")
    best = cli("runs", "best", "probe.top1")
    assert best.out.splitlines() == ["0.5  runs/b", "0.4  runs/c  (unfinished: interrupted)"]
    assert "not ranked: a: probe.top1 0.9 (step 22, other weights)" in best.err
    as_json = json.loads(cli("runs", "best", "probe.top1", "--json").out)
    assert [Path(r["run"]).name for r in as_json["not_ranked"]] == ["a"]


def test_outdated_result_names_its_labels_in_the_hint(cli, tmp_path):
    path = make_run(tmp_path / "runs" / "a", 110, {"probe@5-class": (22, 0.9)})
    file = path / "eval" / "probe@5-class.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"protocol": {"labels": "5/class"}}))
    assert "sslcli eval probe run=a labels=5/class" in cli("runs", "best", "probe@5-class.top1").err


def test_compare_marks_outdated_results(cli, tmp_path):
    make_run(tmp_path / "runs" / "a", 110, {"probe": (22, 0.9), "knn": (110, 0.5)})
    make_run(tmp_path / "runs" / "b", 110, {"probe": (110, 0.5), "knn": (110, 0.7)})
    compared = cli("runs", "compare", "a", "b", "cka=false", f"out={tmp_path}/c.png")
    rows = {line.split()[0]: line.split() for line in compared.out.splitlines() if line}
    assert rows["probe.top1"] == ["probe.top1", "0.9", "(step", "22)", "0.5"]  # without a difference
    assert rows["knn.top1"] == ["knn.top1", "0.5", "0.7", "+0.2"]
    assert "probe (step 22) of A: measured with other weights than A has now" in compared.err


def test_report_marks_outdated_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_run(tmp_path / "runs" / "a", 110, {"probe": (22, 0.41)})
    text = text_of(write_report(path))
    assert "Linear probe (step 22, other weights)" in text
    assert (
        "probe at step 22, with other weights than the run has now; now the run is at epoch 10, the last, step 110"
        in text
    )
    assert "measured with the weights of step 22; the run has other weights now" in text


def test_start_screen_is_of_the_last_resumption(tmp_path):
    first, second = (
        f"T what: SimCLR\nT data: digits\nT plan: {n} steps\nT : batch 128\nT where: cpu\n" for n in (22, 110)
    )
    (tmp_path / "log.txt").write_text(f"{first}T eval probe: {{}}\nT : no row\n{second}T done\n")
    assert records.start_screen(tmp_path)["plan"] == ["110 steps", "batch 128"]


def test_sweep_report_does_not_rank_outdated_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "runs" / "sweep" / "S"
    make_run(sweep / "0_simclr", 110, {"probe": (22, 0.9)})
    make_run(sweep / "1_byol", 110, {"probe": (110, 0.5)})
    text = text_of(write_report(sweep))
    assert "Best by probe top1: 1_byol, 0.500" in text
    assert "0.9000 (step 22)" in text
    assert "Values with a step in brackets are of other weights than the run has now" in text


def test_runs_measured_on_other_data_do_not_compare(cli, tmp_path):
    for name, prints, top1 in (("a", "x", 0.9), ("b", "x", 0.8), ("c", "y", 0.7)):
        run = make_run(tmp_path / "runs" / name, 110, {"probe": (110, top1)})
        record = json.loads((run / "eval" / "probe.json").read_text())
        (run / "eval" / "probe.json").write_text(json.dumps({**record, "fingerprint": prints}))
    best = cli("runs", "best", "probe.top1")
    assert "measured on other data than the first, so that they do not compare: c" in best.err
    compared = cli("runs", "compare", "a", "b", "c", "cka=false", f"out={tmp_path}/c.png")
    assert "probe of C: measured on other data than A: metrics do not compare" in compared.err
    assert "probe: without predictions of single samples, so that no paired test is made" in compared.err
