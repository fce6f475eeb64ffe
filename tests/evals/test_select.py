"""sslcli select and sslcli runs compare, through the command line, on a few small runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from sslcli.builders import load_dataset
from sslcli.data.preprocess import preprocessor_of
from sslcli.data.record import describe_dataset
from sslcli.runs.encoder import write_preprocessor
from sslcli.runs.run import Run
from tests.conftest import SMOKE

QUICK = ["evaluator.groups=20", "evaluator.views=2", "evaluator.points=100", "device=cpu", "device.threads=1"]
PROBE = ["labels=2/class", "seeds=2", "evaluator.strengths=[0.01]", "device=cpu", "device.threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three finished runs in a folder: two seeds of one method, the first with all its checkpoints, and another method."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        small = [*SMOKE, "train.eval_every=1"]
        assert main(["pretrain", "-q", *small, "train.save_every=1", "train.keep=9"]) == 0
        assert main(["pretrain", "-q", *small, "seed=1"]) == 0
        assert main(["pretrain", "-q", *small, "method=simclr"]) == 0
        for run in sorted(folder.glob("runs/2*"))[:2]:
            assert main(["eval", "-q", "probe", f"run={run}", *PROBE]) == 0
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)
    return folder


@pytest.fixture
def runs(made, cli, tmp_path) -> list[str]:
    """A copy of them, in the working folder."""
    shutil.copytree(made / "runs", tmp_path / "runs", symlinks=True)
    return [str(p.relative_to(tmp_path)) for p in sorted((tmp_path / "runs").glob("2*"))]


# ------------------------------------------------------------------------------------------------------------------ select


def test_select_ranking_and_agreement(cli, runs):
    found = json.loads(cli("select", *runs, "by=rankme", *QUICK, "--json").out)
    assert found["by"] == "rankme"
    ranked = found["candidates"]
    assert sorted(c["run"] for c in ranked) == sorted(runs)
    assert [c["ranks"]["rankme"] for c in ranked] == [1, 2, 3]
    assert ranked[0]["numbers"]["rankme"] > ranked[-1]["numbers"]["rankme"]
    assert {"lidar", "clid", "alignment", "uniformity", "spread", "alpha_req"} <= set(ranked[0]["numbers"])
    assert sum(c["probe.top1"] is not None for c in ranked) == 2
    assert found["agreement"]["rankme"]["n"] == 2
    assert any("fewer than 5" in note for note in found["notes"])
    result = cli("select", *runs, *QUICK)
    assert result.out.splitlines()[0].split()[0] == "run"
    assert "agreement with probe.top1" in result.out
    assert "with fewer than 5" in result.err


def test_select_reuses_saved_results(cli, runs, monkeypatch):
    first = cli("select", *runs, *QUICK, "--json").out
    record = json.loads((Path(runs[0]) / "eval" / "quality.json").read_text())
    assert record["evaluator"]["groups"] == 20

    def fail(*_):
        raise AssertionError("measured again")

    with monkeypatch.context() as m:
        m.setattr("sslcli.evals.base.candidates.load_candidate", fail)
        assert cli("select", *runs, *QUICK, "--json").out == first
        assert "rankme" in cli("select", *runs, *QUICK, "by=rankme").out
    again = json.loads(cli("select", *runs, *QUICK, "seed=5", "--json").out)  # other samples
    assert again["candidates"][0]["numbers"] != json.loads(first)["candidates"][0]["numbers"]


def test_select_without_labels(cli, runs, monkeypatch):
    """The ranking is the same without labels and without a test split; what reads labels is not measured unasked."""
    for run in runs:
        shutil.rmtree(Path(run) / "eval", ignore_errors=True)
    ranked = json.loads(cli("select", *runs, *QUICK, "--json").out)["candidates"]
    for run in runs:
        assert [p.name for p in (Path(run) / "eval").iterdir()] == ["quality.json"]
        shutil.rmtree(Path(run) / "eval")
        shutil.rmtree(Path(run) / "cache", ignore_errors=True)

    def without(*given, **options):
        dataset = load_dataset(*given, **options)
        dataset.train.labels = None
        dataset.test = None
        return dataset

    monkeypatch.setattr("sslcli.builders.load_dataset", without)
    assert json.loads(cli("select", *runs, *QUICK, "--json").out)["candidates"] == ranked


def test_select_evaluates_missing_probes(cli, runs):
    before = (Path(runs[0]) / "eval" / "probe@2-class.json").read_text()
    found = json.loads(cli("select", *runs, *QUICK, "probe=true", "labels=2/class", "seeds=2", "--json").out)
    assert all(c["probe.top1"] is not None for c in found["candidates"])
    assert found["agreement"]["clid"]["n"] == 3
    assert (Path(runs[0]) / "eval" / "probe@2-class.json").read_text() == before
    assert (Path(runs[2]) / "eval" / "probe@2-class_predictions.safetensors").is_file()


def test_select_finds_probes_with_labels_of_a_file(cli, runs):
    Path("labels.csv").write_text("id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(8)))
    probes = ["labels=labels.csv", *PROBE[1:]]
    for run in runs:
        for file in (Path(run) / "eval").glob("probe@*"):
            file.unlink()
        assert cli("eval", "probe", f"run={run}", *probes).code == 0
    (file,) = (Path(runs[0]) / "eval").glob("probe@labels-*.json")
    before = file.read_text()
    for words in ([], ["probe=true", *probes[:2]]):
        result = cli("select", *runs, *QUICK, *words, "--json")
        found = json.loads(result.out)
        assert all(c["probe.top1"] is not None for c in found["candidates"]), result.err
        assert not any("no probe to compare" in note for note in found["notes"])
    assert file.read_text() == before
    Path("labels.csv").write_text("id,label\n0,0\n1,1\n2,1\n3,0\n")
    assert "no probe to compare" in cli("select", *runs, *QUICK).err  # labels of other samples
    Path("labels.csv").unlink()
    assert "results with labels=labels.csv are left out" in cli("select", *runs, *QUICK).err


def test_select_excludes_probes_of_other_protocol(cli, runs):
    assert cli("eval", "probe", f"run={runs[2]}", "labels=2/class", "seeds=3", "device=cpu").code == 0
    found = json.loads(cli("select", *runs, *QUICK, "--json").out)
    kept = {c["run"]: c["probe.top1"] for c in found["candidates"]}
    assert kept[runs[2]] is None
    assert kept[runs[0]] is not None
    assert any("protocol other than" in note for note in found["notes"])


def test_select_checkpoints_of_run(cli, runs):
    found = json.loads(cli("select", runs[0], *QUICK, "probe=true", "labels=2/class", "--json").out)
    assert sorted(c["step"] for c in found["candidates"]) == [0, 1, 2, 3, 4]
    by_step = {c["step"]: c for c in found["candidates"]}
    assert by_step[0]["numbers"] != by_step[4]["numbers"]
    assert found["agreement"]["rankme"]["n"] == 5
    kept = sorted(p.name for p in (Path(runs[0]) / "eval" / "checkpoints").iterdir())
    assert kept[:2] == ["step-0000000000_probe@2-class.json", "step-0000000000_probe@2-class_predictions.safetensors"]
    # the last checkpoint holds the weights of the encoder: the same numbers
    cli("select", *runs[:2], *QUICK)
    whole = json.loads((Path(runs[0]) / "eval" / "quality.json").read_text())["numbers"]
    assert by_step[4]["numbers"]["rankme"] == pytest.approx(whole["rankme"], rel=1e-6)
    assert by_step[4]["numbers"]["lidar"] == pytest.approx(whole["lidar"], rel=1e-6)


def test_select_metric_missing_in_one_candidate(cli, runs):
    cli("select", *runs, *QUICK)
    path = Path(runs[1]) / "eval" / "quality.json"
    record = json.loads(path.read_text())
    del record["numbers"]["intrinsic_dim"]
    path.write_text(json.dumps(record))
    found = json.loads(cli("select", *runs, *QUICK, "by=clid", "--json").out)
    assert [c["run"] for c in found["candidates"]][-1] == runs[1]
    assert found["candidates"][-1]["numbers"]["clid"] is None
    assert "1 of 3 lack intrinsic_dim and rank last by it" in found["notes"]
    assert cli("select", *runs, *QUICK, "by=clid").code == 0


def test_select_excludes_damaged_checkpoint(cli, runs):
    worst = sorted((Path(runs[0]) / "checkpoints").glob("step-*"))[1] / "model.safetensors"
    worst.write_bytes(worst.read_bytes()[:-1] + b"x")
    result = cli("select", runs[0], *QUICK, "--json")
    assert sorted(c["step"] for c in json.loads(result.out)["candidates"]) == [0, 2, 3, 4]
    assert "step-0000000001 is left out" in result.err
    for path in sorted((Path(runs[0]) / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)
    result = cli("select", runs[0], *QUICK)
    assert (result.code, "has one checkpoint" in result.err) == (2, True)


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "missing argument: RUN"),
        (["nope"], "there is no run `nope`"),
        (["runs/x*"], "there is no run with an encoder in runs/x*"),
        (["{0}", "{1}", "by=rankmee"], "by=rankmee"),
        (["{0}", "{1}", "by=rankmee"], "by=rankme"),
        (["{0}", "{1}", "probe=maybe"], "true or false"),
        (["{0}", "{1}", "dataset=cifar10"], "that comes from each run"),
        (["{0}", "{1}", "evaluator.smaples=3"], "smaples"),
        (["{0}", "{1}", "evaluator.samples=1"], "at least 2"),
    ],
)
def test_select_rejects_bad_arguments(cli, runs, words, says):
    result = cli("select", *[w.format(*runs) for w in words])
    assert result.code == 2
    assert says in result.err
    assert not result.out


def test_select_patterns_and_folders(cli, runs):
    words = [["runs/2*"], ["2*"], ["runs"], [str(Path("runs").absolute())], ["runs/2*", runs[0]]]
    found = [json.loads(cli("select", *w, *QUICK, "--json").out)["candidates"] for w in words]
    assert [len(c) for c in found] == [3] * 5
    Run(Path(runs[0])).set_status("running")
    (Path(runs[1]) / "encoder.safetensors").unlink()
    result = cli("select", "runs", *QUICK, "--json")
    assert len(json.loads(result.out)["candidates"]) == 2
    assert "left out" in result.err
    (note,) = [n for n in json.loads(result.out)["notes"] if "not done" in n]
    assert "(running, encoder of step 4)" in note


def test_select_warns_of_collapse(cli, runs):
    cli("select", *runs, *QUICK)
    path = Path(runs[1]) / "eval" / "quality.json"
    record = json.loads(path.read_text())
    record["numbers"] |= {"rankme": 1.02, "learnability": 1.0}
    path.write_text(json.dumps(record))
    result = cli("select", *runs, *QUICK)
    assert "may have collapsed" in result.err
    assert Path(runs[1]).name in result.err


def test_select_rejects_different_data(cli, runs):
    path = Path(runs[1]) / "config.yaml"
    path.write_text(path.read_text().replace("split_seed: 0", "split_seed: 1"))
    assert "split_seed: 1" in path.read_text()
    refused = cli("select", *runs, *QUICK)
    assert refused.code == 7
    assert "are not those that" in refused.err  # of the run itself
    dataset = load_dataset(Run(Path(runs[1])).config)
    write_preprocessor(Path(runs[1]), preprocessor_of(dataset).files())
    own = describe_dataset(dataset)
    status = Path(runs[1]) / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"data": own}))
    assert "differ in their data" in cli("select", *runs, *QUICK).err  # of the runs with each other


# ----------------------------------------------------------------------------------------------------------------- compare


def test_compare_two_runs(cli, runs):
    found = json.loads(cli("runs", "compare", *runs[:2], "device=cpu", "--json").out)
    assert [r["name"] for r in found["runs"]] == ["A", "B"]
    assert set(found["config"]) == {"seed"}
    assert found["config"]["seed"] == [0, 1]
    first, second = found["numbers"]["probe@2-class.top1"]
    (row,) = found["items"]
    assert (row["evaluation"], row["run"], row["draws"]) == ("probe@2-class", "B", [2, 2])
    assert (row["first"], row["second"]) == pytest.approx((first, second))
    assert row["low"] <= row["difference"] <= row["high"]
    assert 0 < row["p"] == row["p_holm"] <= 1
    assert row["items"] == 360
    assert row["notes"] == []
    assert {c["run"] for c in found["cka"]} == {"untrained", "B"}
    assert all(0 < c["cka"] <= 1 and c["samples"] == 360 for c in found["cka"])
    from PIL import Image

    with Image.open(found["picture"]) as picture:
        assert picture.size[0] > 600
    result = cli("runs", "compare", *runs[:2], "cka=false", "out=other.png")
    assert result.last == "other.png"
    assert re.search(r"probe@2-class\.top1 B .* McNemar\n", result.out)
    assert "encoders" not in result.out
    again = json.loads(cli("runs", "compare", *runs[:2], "cka=false", "--json").out)
    assert again["items"] == found["items"]  # the bootstrap is seeded
    assert again["cka"] == []


def test_compare_run_with_its_copy(cli, runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "runs" / "twin")
    found = json.loads(cli("runs", "compare", runs[0], "runs/twin", "device=cpu", "--json").out)
    (row,) = found["items"]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)
    assert found["config"] == {}
    assert next(c["cka"] for c in found["cka"] if c["run"] == "B") == pytest.approx(1, abs=1e-9)


def test_compare_three_runs_missing_predictions(cli, runs):
    result = cli("runs", "compare", *runs, "cka=false")
    assert "C has no predictions to compare: sslcli eval probe run=" in result.err
    assert "method._target_" in result.out
    assert cli("eval", "probe", f"run={runs[2]}", *PROBE[:1], "evaluator.strengths=[0.1]", "device=cpu").code == 0
    found = json.loads(cli("runs", "compare", *runs, "cka=false", "--json").out)
    assert [row["run"] for row in found["items"]] == ["B", "C"]
    assert all(row["p_holm"] >= row["p"] for row in found["items"])
    assert any("seeds" in note and "strengths" in note for note in found["items"][1]["notes"])
    assert "Holm p" in cli("runs", "compare", *runs, "cka=false").out


def test_compare_other_data_and_older_weights(cli, runs):
    path = Path(runs[1]) / "eval" / "probe@2-class.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"fingerprint": "other"}))
    result = cli("runs", "compare", *runs[:2], "cka=false")
    assert "different data" in result.err
    assert "McNemar" not in result.out
    path.write_text(json.dumps(record | {"sha256": "older", "step": 2}))
    assert "of step 2" in cli("runs", "compare", *runs[:2], "cka=false").out


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "missing argument: RUN"),
        (["{0}"], "missing argument: RUN"),
        (["{0}", "{0}"], "two or more runs"),
        (["{0}", "nope"], "there is no run `nope`"),
        (["{0}", "{1}", "out=a.gif"], ".png"),
        (["{0}", "{1}", "out=no/a.png"], "there is no folder"),
        (["{0}", "{1}", "ckaa=true"], "cka="),
        (["{0}", "{1}", "cka=1"], "true or false"),
        (["{0}", "{1}", "seed=x"], "expected an integer"),
    ],
)
def test_compare_rejects_bad_arguments(cli, runs, words, says):
    result = cli("runs", "compare", *[w.format(*runs) for w in words])
    assert result.code == 2
    assert says in result.err
    assert not Path("compare.png").exists()


def test_curves_thinning_and_scaling():
    from sslcli.report.comparison.plot import MAX_POINTS, Curves, points, rescale

    lines = [{"step": i, "epoch": i / 10, "train/loss": 1 / (i + 1)} for i in range(5000)]
    lines[3]["train/loss"] = None
    thin = points(lines, "train/loss")
    assert MAX_POINTS / 2 < len(thin) <= MAX_POINTS + 1
    assert thin[-1] == (499.9, 1 / 5000)
    assert rescale([(0, 3.0), (1, 5.0), (2, 4.0)]) == [(0, 0), (1, 1), (2, 0.5)]
    assert rescale([]) == []
    assert rescale([(0, 2.0)]) == [(0, 0.5)]
    assert not Curves(["A"], [[]]).panels
    assert "own range" in next(iter(Curves(["A"], [lines], same_method=False).panels))


def test_runs_best_metric_direction(cli, runs):
    for run, value in zip(runs, (0.5, 1.1, 3.0), strict=True):
        Run(Path(run)).save_eval("quality", {"numbers": {"alpha_req": value, "uniformity": -value}})
    assert runs[1] in cli("runs", "best", "quality.alpha_req", "-n", "1").out
    assert runs[2] in cli("runs", "best", "quality.uniformity", "-n", "1").out


# ------------------------------------------------------------------------------------------- what a best number is worth


def test_runs_best_reports_distinguishability(cli, runs):
    result = cli("runs", "best", "probe@2-class.top1")
    assert len(result.out.splitlines()) == 2
    assert re.search(
        r"the first is (not )?distinguishable from the next \(.*McNemar p .*360 test samples\)", result.err
    )
    found = json.loads(cli("runs", "best", "probe@2-class.top1", "-n", "1", "--json").out)
    assert len(found["runs"]) == 1
    against = found["first_against_next"]
    compared = json.loads(cli("runs", "compare", *runs[:2], "cka=false", "--json").out)["items"][0]
    assert against["difference"]["p"] == compared["p"]
    assert against["distinguishable"] == (compared["p"] < 0.05)
    for run in runs[:2]:  # without predictions the intervals are left
        (Path(run) / "eval" / "probe@2-class_predictions.safetensors").unlink()
    assert "by their intervals, unpaired" in cli("runs", "best", "probe@2-class.top1").err
    for run in runs[:2]:
        Run(Path(run)).save_eval("quality", {"numbers": {"rankme": 3.0}, "fingerprint": "x"})
    assert "of unknown distinction from the next (no interval of rankme" in cli("runs", "best", "quality.rankme").err


def test_select_reports_distinguishability(cli, runs):
    notes = json.loads(cli("select", *runs[:2], *QUICK, "--json").out)["notes"]
    assert any(note.startswith("by learnability ") and "distinguishable from the next" in note for note in notes)
    assert any(note.startswith("by their probes it is ") and "McNemar" in note for note in notes)
    assert any(
        "no interval of rankme" in n
        for n in json.loads(cli("select", *runs, *QUICK, "by=rankme", "--json").out)["notes"]
    )


def test_compare_different_training_lengths(cli, runs):
    short = cli("pretrain", *SMOKE, "train.epochs=null", "train.steps=1").last
    found = json.loads(cli("runs", "compare", runs[0], short, "cka=false", "--json").out)
    assert [r["length"]["steps"] for r in found["runs"]] == [4, 1]
    assert found["runs"][0]["length"]["samples"] == 4 * found["runs"][1]["length"]["samples"]
    assert any("different numbers of steps and samples" in note for note in found["notes"])
    result = cli("runs", "compare", runs[0], short, "cka=false")
    assert re.search(r"A .* done, 4 steps, .* epochs, .* samples in", result.out)
    same = json.loads(cli("runs", "compare", *runs[:2], "cka=false", "--json").out)
    assert not any("different numbers" in note for note in same["notes"])
    assert cli("runs", "report", "runs", "out=all.html").code == 0
    page = Path("all.html").read_text()
    assert "The runs were trained for different numbers of steps and samples" in page
    assert '<th scope="col" class="number">steps</th>' in page
    assert "distinguishable from the next" in page
