"""The report of a sweep: seeds, evaluations, commands.

1. Over seeds, each mean states of how many runs it is, and the headline compares configurations, not single runs.
2. A sweep of evaluations has its metrics and its command.
3. The command of a sweep can be pasted.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sslcli.report.write import write_report
from tests.conftest import SMOKE


def make_sweep(root: Path, jobs: list[tuple[list[str], dict[str, float]]]) -> Path:
    """A sweep with a run for each job: its overrides, and the top-1 accuracy of each evaluator."""
    for number, (words, results) in enumerate(jobs):
        path = root / f"{number}_run"
        (path / "eval").mkdir(parents=True)
        (root / "jobs").mkdir(exist_ok=True)
        (path / "status.json").write_text(json.dumps({"status": "done", "step": 40}))
        (path / "config.yaml").write_text("method: {_target_: sslcli.methods.simclr.SimCLR}\nseed: 0\n")
        (path / "metrics.jsonl").write_text('{"step": 40, "epoch": 1.0, "train/loss": 1.0}\n')
        for name, top1 in results.items():
            (path / "eval" / f"{name}.json").write_text(json.dumps({"numbers": {"top1": top1}, "protocol": {}}))
        job = {"job": number, "overrides": words, "status": "done", "run": str(path)}
        (root / "jobs" / f"{number}.json").write_text(json.dumps(job))
    return root


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text())).replace("&#x27;", "'").replace("&#39;", "'")


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Path:
    return tmp_path / "runs" / "sweep" / "S" if monkeypatch.chdir(tmp_path) is None else tmp_path


def test_means_state_how_many_runs_they_are_of(sweep):
    jobs = [(["method=simclr", f"seed={s}"], {"probe": 0.5} | ({"knn": 0.41} if s == 0 else {})) for s in range(3)]
    text = text_of(write_report(make_sweep(sweep, jobs)))
    assert "0.500 ± 0.000 0.410 (n=1)" in text
    assert "A metric with n in brackets was measured for n of the seeds only." in text


def test_headline_compares_configurations_over_seeds(sweep):
    scores = {"simclr": (0.5, 0.95, 0.5), "byol": (0.8, 0.8, 0.8)}  # the best single run is of simclr
    jobs = [([f"method={m}", f"seed={s}"], {"probe": v[s]}) for m, v in scores.items() for s in range(3)]
    text = text_of(write_report(make_sweep(sweep, jobs)))
    assert "Best by the mean of probe top1 over seeds: method=byol, 0.800 ± 0.000 (3 seeds)." in text
    assert "Next: method=simclr, 0.650 ± 0.260 (3 seeds)." in text
    assert "seed=1," not in text


def test_headline_of_seeds_alone_is_their_mean(sweep):
    jobs = [([f"seed={s}"], {"probe": 0.5 + s / 10}) for s in range(3)]
    text = text_of(write_report(make_sweep(sweep, jobs)))
    assert "Probe top1, mean and standard deviation: 0.600 ± 0.100 (3 seeds)." in text


def test_command_of_a_sweep_can_be_pasted(sweep):
    jobs = [([r"dataset.path=my\ imgs", f"seed={s}"], {"probe": 0.5}) for s in range(2)]
    text = text_of(write_report(make_sweep(sweep, jobs)))
    assert "sslcli pretrain -m 'dataset.path=my imgs' seed=0,1 sslcli runs report sweep/S" in text


def test_sweep_of_evaluations_has_metrics_and_its_command(cli):
    for seed in (0, 1):
        assert cli("pretrain", *SMOKE, f"seed={seed}", "train.steps=1").code == 0
    first, second = (p.name for p in sorted(Path("runs").glob("2*")))
    done = cli("eval", "knn", "-m", f"run={first},{second}", "device=cpu", "evaluator.k=5")
    assert done.code == 0, done.err
    (folder,) = Path("runs/sweep").iterdir()
    values = [json.loads((folder / "jobs" / f"{n}.json").read_text())["numbers"]["knn.top1"] for n in (0, 1)]
    text = text_of(write_report(folder))
    command = shlex.join(["sslcli", "eval", "knn", "-m", f"run={first},{second}", "device=cpu", "evaluator.k=5"])
    assert command in text
    assert "2 evaluations over run" in text
    assert "Best by knn top1: run=" in text
    assert all(f"{value:.4f}" in text for value in values)
