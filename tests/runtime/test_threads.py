"""Cores and threads: CPU quotas, the wait policy of OpenMP, and the selection of the faster thread count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslcli.runs.run import Run
from sslcli.runtime import resources, threads
from sslcli.runtime.device import Runtime
from sslcli.runtime.processes import ProcessInfo
from tests.conftest import SMOKE


@pytest.fixture(autouse=True)
def _threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    "inner,outer,expected",
    [("150000 100000", "max 100000", 1.5), ("max 100000", "50000 100000", 0.5), ("max 100000", "max 100000", None)],
)
def test_quota_of_cgroup_v2(tmp_path, inner, outer, expected):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/slice/job\n")
    group(tmp_path / "fs" / "slice", cpu__max=outer)
    group(tmp_path / "fs" / "slice" / "job", cpu__max=inner)
    assert resources.quota(membership, tmp_path / "fs") == expected


def test_quota_of_cgroup_v1(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("5:memory:/x\n4:cpu,cpuacct:/job\n")
    group(tmp_path / "fs" / "cpu,cpuacct" / "job", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    group(tmp_path / "fs" / "memory" / "x", cpu__max="1 100000")
    assert resources.quota(membership, tmp_path / "fs") == 3.0


def test_quota_without_cgroups(tmp_path):
    assert resources.quota(tmp_path / "none", tmp_path) is None


def test_usable_cores_respects_quota(monkeypatch):
    monkeypatch.setattr(resources, "affinity", lambda: 8)
    for limit, expected in ((None, 8), (2.5, 3), (0.2, 1), (64.0, 8)):
        monkeypatch.setattr(resources, "quota", lambda limit=limit: limit)
        assert resources.usable_cores() == expected


@pytest.mark.parametrize("given", [None, *resources.WAIT_VARIABLES])
def test_wait_policy_passive_by_default(monkeypatch, given):
    for name in resources.WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "7")
    resources.prepare_environment()
    assert resources.wait_policy() == (f"{given}=7" if given else "OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=1000")


def test_wait_policy_is_set_before_torch(tmp_path):
    """libgomp reads the variable only when torch is imported."""
    code = """
import os, sys
from sslcli import cli
imported_early = "torch" in sys.modules
code = cli.main(["--version"])
sys.exit(imported_early or code or os.environ.get("OMP_WAIT_POLICY") != "PASSIVE")
"""
    environment = {k: v for k, v in os.environ.items() if k not in resources.WAIT_VARIABLES}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False).returncode == 0


def machine(device: str = "cpu", count: int = 2, world_size: int = 1) -> Runtime:
    return Runtime(
        torch.device(device), "fp32", False, False, 0, count, process=ProcessInfo(0, world_size, 0, world_size)
    )


def test_candidates_all_and_one(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert machine().thread_candidates(None) == [2, 1]
    assert machine().thread_candidates(2) == [2]  # device.threads is given
    assert machine(count=1).thread_candidates(None) == [1]
    assert machine(world_size=2).thread_candidates(None) == [2]
    assert machine("meta").thread_candidates(None) == [2]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine().thread_candidates(None) == [2]


def clock(monkeypatch, seconds: dict[int, float]) -> None:
    """Time in which a step takes `seconds[threads in use]` and nothing else takes time."""
    now = [0.0]

    def step() -> None:
        now[0] += seconds[torch.get_num_threads()]

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    return step


@pytest.mark.parametrize("one,expected", [(0.02, 1), (0.5, 2), (0.098, 2)])
def test_faster_thread_count_is_chosen(monkeypatch, one, expected):
    torch.set_num_threads(2)
    times = threads.time_threads(clock(monkeypatch, {2: 0.1, 1: one}), [2, 1], 2.0)
    assert times == pytest.approx({2: 0.1, 1: one})
    assert torch.get_num_threads() == 2
    assert threads.fastest(times) == expected  # 2 % faster is not worth another rounding


def test_long_steps_timed_with_all_threads(monkeypatch):
    torch.set_num_threads(2)
    assert list(threads.time_threads(clock(monkeypatch, {2: 5.0, 1: 9.0}), [2, 1], 2.0)) == [2]


@pytest.fixture
def one_is_faster(monkeypatch):
    """Compare all threads with one on any machine, and choose one thread."""
    compare = threads.time_threads
    monkeypatch.setattr(threads, "time_threads", lambda step, counts, *_: compare(step, counts, 1e9, lambda *_: True))
    monkeypatch.setattr(threads, "fastest", min)


@pytest.mark.usefixtures("one_is_faster")
def test_budget_keeps_the_faster_count(cli, monkeypatch):
    """One thread is the faster count: it is used, recorded, and used again on resume."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    monkeypatch.setattr(Runtime, "thread_candidates", lambda machine, wanted: [2, 1] if wanted is None else [wanted])
    words = [w for w in SMOKE[1:] if not w.startswith("device.threads")]
    done = cli("pretrain", *words, "train.budget=2s", "train.batch_size=64", "train.eval_every=0")
    assert done.code == 0, done.err
    assert "device.threads=1" in done.err
    run = Run(Path(done.last))
    assert run.config["device"]["threads"] == 1
    state = sorted(run.path.glob("checkpoints/step-*/state.json"))[-1]
    assert json.loads(state.read_text())["threads"] == 1
    torch.set_num_threads(2)
    steps = run.status["step"] + 1
    resumed = cli("resume", run.path.name, f"train.steps={steps}", "train.budget=null")
    assert resumed.code == 0, resumed.err
    assert torch.get_num_threads() == 1
    assert "threads was" not in resumed.err


@pytest.mark.usefixtures("one_is_faster")
def test_dry_run_compares_threads(cli, monkeypatch):
    monkeypatch.setattr("sslcli.training.dry_run.COMPARE_SECONDS", 1e9)
    monkeypatch.setattr(Runtime, "thread_candidates", lambda machine, wanted: [2, 1])
    done = cli("pretrain", *SMOKE, "--dry-run")
    assert done.code == 0, done.err
    assert "1 thread" in done.err
    assert "device.threads=1 is faster" in done.err


@pytest.mark.usefixtures("one_is_faster")
def test_bench_compares_threads(cli, monkeypatch):
    monkeypatch.setattr(Runtime, "thread_candidates", lambda machine, wanted: [2, 1])
    done = cli("bench", *SMOKE, "repeats=1", "seconds=0.02", "--json")
    assert done.code == 0, done.err
    where = json.loads(done.out)["machine"]
    assert where["threads"] == 1
    assert set(where["seconds_a_step_by_threads"]) == {"1", "2"}


def test_doctor_reports_thread_limits(cli, monkeypatch):
    monkeypatch.setattr(resources, "quota", lambda: 1.5)
    done = cli("doctor")
    assert "CPU quota 1.5 cores" in done.out
    assert "wait policy" in done.out
