"""Launchers, sweep scripts and the Slurm script of the documentation: stopped, started again, nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import zygote
from tests.cli.sweeping import ENV, LONG, ONE_STEP, ROOT, jobs, runs, status, training, wait_for
from tests.conftest import SMOKE


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], object], Callable[[], object]], None]]:
    """`meanwhile(condition, act)`: calls `act` in another thread once `condition` holds, while a sweep runs in this one."""
    threads: list[threading.Thread] = []
    failed: list[BaseException] = []

    def arrange(condition: Callable[[], object], act: Callable[[], object]) -> None:
        def body() -> None:
            try:
                wait_for(condition)
                act()
            except BaseException as e:
                failed.append(e)

        threads.append(threading.Thread(target=body))
        threads[-1].start()

    yield arrange
    for thread in threads:
        thread.join()
    assert not failed, failed


@pytest.fixture
def joblib() -> Iterator[list[str]]:
    """The overrides that select joblib. Its processes are stopped afterwards, as they keep their working folder open."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    yield ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.mark.slow
def test_joblib_failures_and_signal(cli, joblib, meanwhile):
    meanwhile(lambda: sum(training(r) for r in runs()) == 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    arguments = ["method.proj_dim=-1,32,64,16,8", *LONG, "logger.log_every=1"]
    result = cli("pretrain", "-m", *arguments, *joblib)
    assert result.code == 75, result.err
    assert result.out == ""
    assert result.err.count("the width of a head must be a positive integer") == 1
    assert "1 of 5 jobs failed" in result.err
    assert [j["status"] for j in jobs()] == ["failed", "stopped", "stopped", "stopped", "stopped"]
    assert [status(r)["status"] for r in runs()] == ["interrupted", "interrupted"]


def test_dead_job_process_is_reported(tmp_path, capfd):
    from sslcli.cli.sweep import Sweep

    def launch() -> None:
        (tmp_path / "jobs").mkdir()
        job = {"pid": 1, "host": "this", "status": "running"}
        (tmp_path / "jobs" / "0.json").write_text(json.dumps(job | {"job": 0, "overrides": ["seed=0"]}))
        done = {"job": 1, "overrides": ["seed=1"], "status": "done", "run": "runs/that", "value": 1.0}
        (tmp_path / "jobs" / "1.json").write_text(json.dumps(job | done))
        raise RuntimeError("a worker process was terminated")

    (tmp_path / "0_seed=0").mkdir()
    (tmp_path / "0_seed=0" / "status.json").write_text("{}")
    assert Sweep("pretrain", [], tmp_path, "joblib").conduct(launch) == 3
    out, err = capfd.readouterr()
    assert out == "runs/that\n"
    assert "job 0 (seed=0): the process exited unexpectedly" in err
    resume = f"sslcli resume {shlex.quote(str(tmp_path / '0_seed=0'))} continues its run alone"
    assert resume in err
    assert "run the same command with resume=auto to continue" in err
    assert "1 of 2 jobs failed" in err


def test_failed_slurm_job_is_reported_with_its_hint(tmp_path, capfd):
    from sslcli.cli.sweep import Sweep

    def launch() -> None:
        (tmp_path / "jobs").mkdir()
        job = {"job": 0, "overrides": ["seed=0"], "pid": 1, "host": "this", "status": "failed", "code": 3}
        job |= {
            "error": "process 1 of 2 (pid 5) ended: SIGKILL",
            "hint": "the last checkpoint is intact: sslcli resume R",
        }
        (tmp_path / "jobs" / "0.json").write_text(json.dumps(job))

    assert Sweep("pretrain", [], tmp_path, "submitit_slurm").conduct(launch) == 3
    err = capfd.readouterr().err
    assert "job 0 (seed=0): process 1 of 2 (pid 5) ended: SIGKILL" in err
    assert "sslcli resume R" in err


def test_launcher_error_names_launcher(tmp_path):
    from sslcli.cli.sweep import Sweep
    from sslcli.errors import MachineError

    def launch() -> None:
        (tmp_path / "multirun.yaml").touch()
        raise RuntimeError("no queue")

    with pytest.raises(MachineError, match="hydra/launcher=joblib: RuntimeError: no queue"):
        Sweep("pretrain", [], tmp_path, "joblib").conduct(launch)
    assert not tmp_path.exists()


@pytest.mark.slow
def test_submitit_failures_and_requeue(cli, meanwhile):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    arguments = ["resume=auto", *SMOKE, "train.steps=200", "method.proj_dim=16,-1", "train.save_every=1h"]
    arguments.append("logger.log_every=1")
    started = lambda: any(training(r) for r in runs())  # noqa: E731
    meanwhile(started, lambda: os.kill(jobs()[0]["pid"], signal.SIGUSR2))  # Slurm sends it before the time limit
    result = cli("pretrain", "-m", *arguments, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    (run,) = runs()
    assert result.code == 2, result.err
    assert result.out == f"{run}\n"
    assert "the width of a head must be a positive integer" in result.err  # from the log of the job
    assert "1 of 2 jobs failed" in result.err
    assert (status(run)["status"], status(run)["step"]) == ("done", 200)
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert events.count("resumed") == 1


@pytest.mark.filterwarnings("ignore")  # optuna 2 warns of its own code
def test_optuna_maximizes_despite_failures(cli):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    arguments = [
        *["pretrain", "-m", "resume=auto", *SMOKE, "train.steps=4", "hydra/sweeper=optuna"],
        *["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler.seed=3"],
        *["optimizer.lr=tag(log, interval(0.001, 1))", "method.proj_dim=choice(32,-1)"],
    ]
    result = cli(*arguments)
    records = jobs()
    assert len(records) == 4
    statuses = [j["status"] for j in records]
    assert 0 < statuses.count("failed") < 4
    assert result.code == 2
    assert f"{statuses.count('failed')} of 4 jobs failed" in result.err
    (best,) = Path.cwd().glob("runs/sweep/*/optimization_results.yaml")
    value = float(re.search(r"best_value: (\S+)", best.read_text())[1])  # type: ignore[index]
    assert value == max(j["value"] for j in records if j["status"] == "done")
    again = cli(*arguments)
    assert again.out == result.out


# --------------------------------------------------------------------------------------------------------------- scripts


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Iterator[str]:
    """The text of an `sslcli` program that starts without the time of imports."""
    path = str(tmp_path_factory.mktemp("zygote") / "socket")
    with subprocess.Popen([sys.executable, "-m", "tests.zygote", path], cwd=ROOT, env=ENV) as process:
        wait_for(lambda: Path(path).exists())
        yield zygote.client(path)
        process.kill()


@pytest.fixture
def environment(tmp_path, program) -> dict[str, str]:
    """An environment with this `sslcli` and this `python3`, and a `scontrol` that records its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "sslcli": program,
        "python3": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >>{shlex.quote(str(tmp_path / "requeued"))}\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return ENV | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def bash(tmp_path, environment) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script in an empty folder, as a process group of its own, which is killed after the test."""
    started = []

    def start(script: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", str(script), *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdout=-1,
            stderr=-1,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_sweep_methods_script_resumes(cli, bash):
    arguments = [*SMOKE, "train.steps=150", "train.save_every=1h", "logger.log_every=1"]
    done = Path(cli("pretrain", "method=simsiam", "seed=0", "resume=auto", *arguments).last)  # finished earlier
    cli("eval", "probe", f"run={done}", "labels=1/class")
    probed = (done / "eval" / "probe@1-class.json").stat().st_mtime_ns

    script = ROOT / "scripts" / "sweep_methods.sh"
    variables = {"METHODS": "byol simsiam", "SEEDS": "0", "LABELS": "1/class"}
    first = bash(script, *arguments, **variables)
    wait_for(lambda: any("byol" in r.name and training(r) for r in runs()))
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
    out, err = first.communicate(timeout=120)
    assert first.returncode in (130, -signal.SIGINT), err
    assert out == ""
    both = runs()
    assert [status(r)["status"] for r in both] == ["done", "interrupted"]

    second = bash(script, *arguments, **variables)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert runs() == both
    assert [status(r)["status"] for r in both] == ["done", "done"]
    assert (done / "eval" / "probe@1-class.json").stat().st_mtime_ns == probed
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["byol", "1"], ["simsiam", "1"]]
    for line, run in zip(lines[1:], reversed(both), strict=True):
        numbers = json.loads((run / "eval" / "probe@1-class.json").read_text())["numbers"]
        assert line.split()[2] == f"{numbers['top1']:.3f}"


@pytest.mark.slow
def test_sweep_lr_script_sorts_by_accuracy(bash):
    done = bash(ROOT / "scripts" / "sweep_lr.sh", *ONE_STEP, RATES="0.1,0.2", LABELS="1/class")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    values = [float(line.split()[0]) for line in out.splitlines()]
    assert len(values) == 2
    assert values == sorted(values, reverse=True)
    assert {line.split()[2] for line in out.splitlines()} == {"0.1", "0.2"}


@pytest.mark.slow
def test_slurm_script_requeues(tmp_path, bash):
    text = (ROOT / "docs" / "guides" / "slurm.md").read_text(encoding="utf-8")
    script = tmp_path / "sslcli.sbatch"
    script.write_text(re.findall(r"```bash\n(#!.*?)```", text, re.S)[0])
    arguments = [*SMOKE, "train.steps=200", "train.save_every=1h", "logger.log_every=1"]
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "sslcli", "SLURM_RESTART_COUNT": "0"}
    first = bash(script, *arguments, **slurm)
    wait_for(lambda: any(training(r) for r in runs(tmp_path)))
    os.kill(first.pid, signal.SIGTERM)  # to the script alone, as --signal=B: does
    _, err = first.communicate(timeout=120)
    assert first.returncode == 75, err
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    (run,) = runs(tmp_path)
    assert status(run)["status"] == "interrupted"

    second = bash(script, *arguments, **slurm | {"SLURM_RESTART_COUNT": "1"})
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert out == f"{run.relative_to(tmp_path)}\n"
    assert (status(run)["status"], status(run)["step"]) == ("done", 200)
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"


def test_documented_launchers_compose():
    """The blocks that need an extra; the test of all documents composes the others."""
    from sslcli.cli.arguments import parse
    from sslcli.cli.command_table import COMMANDS
    from sslcli.cli.sweep import expand_sweep
    from sslcli.config import compose

    requests = []
    for page in ("sweeps.md", "slurm.md"):
        for block in re.findall(
            r"```bash\n(sslcli .*?)```", (ROOT / "docs" / "guides" / page).read_text(encoding="utf-8"), re.S
        ):
            command, *rest = shlex.split(block)[1:]
            requests.append((command, parse(rest, COMMANDS[command])))
    assert len(requests) == 3
    for plugin in ("joblib_launcher", "submitit_launcher", "optuna_sweeper"):
        pytest.importorskip(f"hydra_plugins.hydra_{plugin}")
    for command, request in requests:
        compose.compose(command, expand_sweep(command, request.overrides, [])[0])
