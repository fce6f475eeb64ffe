"""Sweeps and resume=auto: failed jobs are counted, signals stop every job, finished work is not repeated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.sweeping import ONE_STEP, jobs, runs, status
from tests.conftest import SMOKE


@pytest.fixture
def stop_at(monkeypatch) -> Callable[[int, signal.Signals], None]:
    """Sends this process a signal in the given training step, once."""

    def arrange(step: int, number: signal.Signals = signal.SIGTERM) -> None:
        from sslcli.training.loop.trainer import Trainer

        plain, pending = Trainer.step, [number]

        def stepping(self, *args):
            if self.state.step == step and pending:
                os.kill(os.getpid(), pending.pop())
            return plain(self, *args)

        monkeypatch.setattr(Trainer, "step", stepping)

    return arrange


# ----------------------------------------------------------------------------------------------------------- the request


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=simsiam,nope"], "no method named `nope`"),
        (["optimizer.lr=0.1,abc"], "optimizer.lr: expected a number"),
        (["optimizer.lr=0.1,-1"], "expected a positive number"),
        (["train.epoch=1,2"], "`train` has no key `epoch`"),
        (["seed=0,1", "method.pred_dmi=3"], "`method` has no key `pred_dmi`"),
        (["seed=0,1", "optimizer=sgd,adamw"], "for another optimizer"),
        (["seed=0,1", "resume=yes"], "expected auto or null"),
        (["seed=0,1", "hydra/launcher=nope"], "nope"),
        (["hydra/sweeper=basic", "optimizer.lr=interval(-1,1)"], "expected a positive number"),
        (["seed=[0,1"], "cannot parse"),
    ],
)
def test_invalid_sweep_creates_no_folder(cli, arguments, message):
    result = cli("pretrain", "-m", *arguments)
    assert result.code == 2, result
    assert message in result.err
    assert list(Path.cwd().iterdir()) == []


def test_hydra_error_leaves_no_folder(cli):
    result = cli("pretrain", "-m", "optimizer.lr=interval(0.1,1)")  # Hydra's basic sweeper takes no interval
    assert result.code == 2
    assert "interval" in result.err.lower()
    assert runs() == []
    assert not list(Path.cwd().glob("runs/sweep/*"))


def test_missing_extra_hint(cli, monkeypatch):
    from sslcli.cli import sweep

    monkeypatch.setitem(sweep.EXTRAS, "joblib", ("hydra_plugins.not_there", "sweep"))
    result = cli("pretrain", "-m", "seed=0,1", "hydra/launcher=joblib")
    assert result.code == 3
    assert "pip install 'sslcli[sweep]'" in result.err


def test_expand_sweep_each_value_once():
    from sslcli.cli.sweep import expand_sweep

    jobs = expand_sweep("pretrain", ["seed=range(0,3)", "method=simsiam,byol", "train.epochs=2"], [])
    assert jobs == [
        ["seed=0", "method=simsiam", "train.epochs=2"],
        ["seed=1", "method=simsiam", "train.epochs=2"],
        ["seed=0", "method=byol", "train.epochs=2"],
        ["seed=2", "method=simsiam", "train.epochs=2"],
    ]
    globbed = {o for (o,) in expand_sweep("pretrain", ["method=glob(sim*)"], [])}
    assert globbed == {"method=simsiam", "method=simclr", "method=simcse", "method=simmim"}


def test_launcher_without_sweep_warns(cli):
    result = cli("pretrain", "hydra/launcher=basic", "train.epochs=0")
    assert "hydra/launcher=basic has no effect without -m" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "resume=latest"], "sslcli resume RUN"),
        (["pretrain", "resume=true"], "expected auto or null"),
        (["pretrain", "resume=auto", "init=latest"], "init=RUN"),
        (["eval", "knn", "resume=auto", "run=none"], "no key `resume`"),
    ],
)
def test_resume_key_must_be_auto(cli, arguments, message):
    result = cli(*arguments)
    assert result.code == 2
    assert message in result.err
    assert list(Path.cwd().iterdir()) == []


# -------------------------------------------------------------------------------------------------------- failing, stopping


def test_failed_job_does_not_stop_sweep(cli):
    batches = "hydra.sweeper.max_batch_size=2"
    result = cli("pretrain", "-m", "method.proj_dim=-1,32,-2,16", *ONE_STEP, batches)
    assert result.code == 2, result
    assert result.err.count("the width of a head must be a positive integer") == 2
    assert "2 of 4 jobs failed" in result.err
    assert "Error executing job" not in result.err
    assert [Path(line) for line in result.out.splitlines()] == runs()
    assert [(j["job"], j["status"]) for j in jobs()] == [(0, "failed"), (1, "done"), (2, "failed"), (3, "done")]
    assert [j["run"] for j in jobs() if j["status"] == "done"] == result.out.splitlines()
    assert len(list(Path.cwd().glob("runs/sweep/*/[0-9]*"))) == 2  # none for the jobs that were refused


def test_exit_code_of_first_failure(cli, monkeypatch):
    from sslcli.errors import StorageError
    from sslcli.training.loop.trainer import Trainer

    def full(self, **how):
        raise StorageError("the disk is full")

    monkeypatch.setattr(Trainer, "save", full)
    assert cli("pretrain", "-m", "method.proj_dim=32,-1", *SMOKE, "train.steps=1").code == 5


def test_ctrl_c_then_resume_auto(cli, stop_at):
    stop_at(2, signal.SIGINT)
    arguments = ["pretrain", "-m", "seed=0,1", "resume=auto", *SMOKE]
    result = cli(*arguments)
    assert result.code == 130, result
    assert result.out == ""
    assert "the sweep was stopped; 0 of its jobs are done" in result.err
    assert [j["status"] for j in jobs()] == ["stopped"]
    (interrupted,) = runs()
    assert status(interrupted)["status"] == "interrupted"

    again = cli(*arguments)
    assert again.code == 0, again.err
    first, second = map(Path, again.out.splitlines())
    assert first == interrupted
    assert runs() == sorted([first, second])
    assert [status(r)["step"] for r in (first, second)] == [4, 4]
    assert "resuming at step 3" in again.err


def test_signal_before_training(cli, monkeypatch):
    from sslcli import builders

    monkeypatch.setattr(builders, "load_dataset", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    result = cli("pretrain", *SMOKE)
    assert result.code == 75
    assert "stopped by SIGUSR1" in result.err
    assert list(Path.cwd().iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ resume=auto


def test_resume_auto_starts_continues_skips(cli, stop_at):
    arguments = ["pretrain", "resume=auto", *SMOKE]
    stop_at(2)
    assert cli(*arguments).code == 75
    (run,) = runs()
    resumed = cli(*arguments)
    assert (resumed.code, resumed.out) == (0, f"{run}\n")
    assert status(run)["status"] == "done"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    skipped = cli(*arguments)
    assert (skipped.code, skipped.out) == (0, f"{run}\n")
    assert "is done (step 4)" in skipped.err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before
    assert runs() == [run]
    assert [p for p in Path("runs").iterdir() if not p.is_symlink()] == [run]  # Hydra's new folders were removed
    other = cli(*arguments, "seed=1")
    assert Path(other.last) != run
    assert "resumed" in cli("runs", "show", run.name).out


def test_resume_auto_ignores_execution_keys(cli, stop_at):
    stop_at(1)
    assert cli("pretrain", "resume=auto", *SMOKE).code == 75
    (run,) = runs()
    changed = cli("pretrain", "resume=auto", *SMOKE, "train.save_every=1", "logger.log_every=1", "device.workers=0")
    assert (changed.code, changed.out) == (0, f"{run}\n")


def test_resume_auto_run_in_use(cli, stop_at):
    stop_at(1)
    assert cli("pretrain", "resume=auto", *SMOKE).code == 75
    (run,) = runs()
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, run / ".lock"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = cli("pretrain", "resume=auto", *SMOKE)
        holder.communicate(b"\n")
    assert result.code == 6
    assert "is in use by" in result.err
    assert runs() == [run]


def test_resume_auto_compares_data(cli):
    def write(seed: int) -> None:
        images = np.random.default_rng(seed).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
        np.save("images.npy", images)

    arguments = ["pretrain", "resume=auto", "dataset=arrays", "dataset.path=images.npy", *ONE_STEP]
    write(0)
    first = cli(*arguments)
    assert first.code == 0, first.err
    assert cli(*arguments).out == first.out
    write(1)
    second = cli(*arguments)
    assert second.code == 0, second.err
    assert "has this configuration but other data" in second.err
    assert second.out != first.out
    write(0)
    assert cli(*arguments).out == first.out


def arrays_and_series() -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8))
    np.savez("series.npz", x=rng.normal(size=(64, 2, 16)).astype(np.float32))
    short = ["train.steps=4", "train.epochs=null", "train.batch_size=16", "train.eval_every=0", "method=vicreg"]
    device = ["device=cpu", "device.threads=1", "backbone.width=8"]
    return {
        "arrays": ["dataset=arrays", "dataset.path=images.npy", *short, *device],
        "series": ["dataset=series", "dataset.path=series.npz", *short, *device],
    }


@pytest.mark.parametrize("kind", ["arrays", "series"])
def test_resume_auto_finds_runs_begun_before_a_key(cli, stop_at, kind):
    """Runs of an earlier version have no key `task`: it means its default, but no other value."""
    words = arrays_and_series()[kind]
    stop_at(2)
    assert cli("pretrain", *words, "~dataset.task").code == 75
    (run,) = runs()
    assert "task" not in (run / "config.yaml").read_text()
    assert "task" not in json.loads(next(run.glob("checkpoints/*/state.json")).read_text())["config"]
    resumed = cli("pretrain", "resume=auto", *words)
    assert (resumed.code, resumed.out) == (0, f"{run}\n"), resumed.err
    assert "resuming at step 3 (bit-exact)" in resumed.err
    assert "task: auto" in (run / "config.yaml").read_text()
    assert cli("pretrain", "resume=auto", *words).out == resumed.out  # done, and skipped
    other = cli("pretrain", "resume=auto", *words, "dataset.task=classes")
    assert other.code == 0, other.err
    assert other.out != resumed.out


def test_resume_auto_skips_finished_runs_begun_before_a_key(cli):
    words = arrays_and_series()["arrays"]
    first = cli("pretrain", *words, "~dataset.task", "~dataset.label")
    assert first.code == 0, first.err
    again = cli("pretrain", "resume=auto", *words)
    assert (again.code, again.out) == (0, first.out)
    assert "is done (step 4)" in again.err


def test_repeated_sweep_skips_finished_jobs(cli):
    arguments = ["pretrain", "-m", "seed=0,1", "resume=auto", *SMOKE, "train.eval_every=1"]
    first = cli(*arguments)
    assert first.code == 0, first.err
    values = [j["value"] for j in jobs()]
    assert all(0 < v <= 1 for v in values)
    again = cli(*arguments)
    assert (again.code, again.out) == (0, first.out)
    assert [j["value"] for j in jobs()] == values  # the value of a run that was not repeated
    kept, removed = map(Path, first.out.splitlines())
    shutil.rmtree(removed)
    third = cli(*arguments)
    assert third.code == 0
    assert third.out.splitlines()[0] == str(kept)
    assert third.out.splitlines()[1] != str(removed)
    assert [j["value"] for j in jobs()] == values  # equal: a run is a function of its configuration
    shown = cli("runs", "show", third.out.splitlines()[1])
    assert "job 1: seed=1" in shown.out


def test_pipeline_resume_auto(cli, stop_at):
    arguments = ["pipeline", "resume=auto", "stages=[knn]", *SMOKE]
    stop_at(2)
    assert cli(*arguments).code == 75
    (run,) = runs()
    done = cli(*arguments)
    assert (done.code, done.last) == (0, str(run))
    assert (run / "eval" / "knn.json").exists()
    assert cli("pretrain", "resume=auto", *SMOKE).out == f"{run}\n"  # the same training
    assert cli(*arguments).last == str(run)
    assert runs() == [run]


def test_sweep_of_evaluations(cli):
    run = cli("pretrain", *ONE_STEP).last
    result = cli("eval", "knn,quality", "-m", f"run={run}")
    assert result.code == 0, result.err
    assert {line.split(".")[0] for line in result.out.splitlines()} == {"knn", "quality"}
    assert [j["status"] for j in jobs()] == ["done", "done"]
    assert not list(Path.cwd().glob("runs/sweep/*/[0-9]*"))
    assert cli("eval", "knn", "-m", f"run={run},nope").code == 2


# ------------------------------------------------------------------------------------------------------ the list of runs


def make_run(path: Path, **values: Any) -> Path:
    path.mkdir(parents=True)
    content = {
        "status": "done",
        "step": 4,
        "created": "2026-01-01T00:00:00+00:00",
        "host": os.uname().nodename,
        **values,
    }
    (path / "status.json").write_text(json.dumps(content))
    (path / ".lock").touch()
    return path


def test_status_lost_without_process(cli):
    from sslcli.runs.run import Run, now

    folder = Path("runs")
    make_run(folder / "here", status="running", heartbeat=now())
    make_run(folder / "elsewhere", status="running", heartbeat=now(), host="another")
    make_run(folder / "long_ago", status="running", heartbeat="2026-01-01T00:00:00+00:00", host="another")
    held = make_run(folder / "held", status="running", heartbeat="2026-01-01T00:00:00+00:00")
    make_run(folder / "sweep" / "2026-01-01" / "0_simsiam", status="done")
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, held / ".lock"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        listed = json.loads(cli("runs", "--json").out)["runs"]
        holder.communicate(b"\n")
    statuses = {Path(r["run"]).name: r["status"] for r in listed}
    assert statuses == {
        "here": "lost",
        "elsewhere": "running",
        "long_ago": "lost",
        "held": "running",
        "0_simsiam": "done",
    }
    assert "sweep/2026-01-01/0_simsiam" in cli("runs").out
    assert "sslcli resume here" in cli("runs", "show", "here").err
    assert Run(folder / "here").status["status"] == "running"  # listing writes nothing


COUNTED = """
import collections, sys
files = collections.Counter()
def count(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].endswith((".json", ".jsonl", ".yaml", ".csv")):
        files[args[0].rpartition("/")[2], args[1]] += 1
sys.addaudithook(count)
from sslcli.cli import main
code = main(["runs"])
assert "torch" not in sys.modules
assert "hydra" not in sys.modules
print(max(files.values()), sum(files.values()), file=sys.stderr)
"""


@pytest.mark.slow
def test_list_500_runs_reads_few_files(tmp_path):
    """Listing takes the time of reading their files, each at most twice; nothing large is imported for it."""
    for i in range(500):
        run = make_run(tmp_path / "runs" / f"run_{i:03d}", online={"knn/top1": 0.5}, packages={"torch": "2"})
        (run / "eval").mkdir()
        (run / "eval" / "probe.json").write_text(json.dumps({"numbers": {"top1": i / 500}, "protocol": {}}))
    done = subprocess.run([sys.executable, "-c", COUNTED], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 501
    most, total = map(int, done.stderr.split()[-2:])
    assert most <= 2 * 500, done.stderr
    assert total <= 4 * 500, done.stderr
