"""Progress lines of long tasks, and heartbeats of a run."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from sslcli.runs.run import Run
from sslcli.runtime import progress
from tests.conftest import SMOKE


@pytest.fixture
def clock(monkeypatch):
    """No background thread: the test calls `update` at chosen times."""
    began = time.monotonic()
    monkeypatch.setattr(progress, "_start", lambda: None)
    monkeypatch.setattr(progress, "_shown_at", 0.0)
    monkeypatch.setattr(progress, "_tasks", [])
    return lambda seconds: progress.update(began + seconds + 0.1)


def test_lines_without_terminal(clock, capsys):
    with progress.task("eval"), progress.task("draw", total=4) as draw:
        draw.advance()
        for second in range(1, 101):
            clock(second)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # after 10, 40, 70 and 100 seconds
    assert lines[0] == "eval: draw 1/4, 10s so far, 30s left"
    assert lines[3] == "eval: draw 1/4, 1m40s so far, 5m00s left"
    clock(200)
    assert capsys.readouterr().err == ""  # nothing is being done


def test_short_tasks_print_nothing(clock, capsys):
    for _ in range(10):
        with progress.task("quick"):
            clock(5)
    assert capsys.readouterr().err == ""


def test_quiet_tasks_print_nothing(clock, capsys, monkeypatch):
    monkeypatch.setenv("SSLCLI_QUIET", "1")
    with progress.task("long"):
        clock(60)
    assert capsys.readouterr().err == ""


def test_parts_count_towards_total():
    whole, part = progress.Task("labels", 4, done=1), progress.Task("samples", 10, done=5)
    assert progress.fraction([whole, part]) == (1 + 0.5) / 4
    assert progress.fraction([whole]) == 0.25
    assert progress.fraction([progress.Task("unknown"), part]) == 0.5
    assert progress.fraction([progress.Task("unknown")]) == 0


def test_counted_parts_end_with_task(clock):
    with progress.task("data set"):
        progress.count("reading headers", 1, 10)
        progress.count("reading headers", 2, 10)
        assert [t.label for t in progress._tasks] == ["data set", "reading headers"]
        progress.count("packing", 1, 10)
        assert [t.label for t in progress._tasks] == ["data set", "packing"]
        progress.count("packing", 10, 10)
        assert [t.label for t in progress._tasks] == ["data set"]
        progress.count("reading headers", 3, 10)  # and never ends
    assert progress._tasks == []


def test_abandoned_loop_closes_task(clock):
    for _ in progress.track(range(3), "loop"):
        break
    assert progress._tasks == []


def test_heartbeat_while_main_thread_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "HEARTBEAT", 0.02)
    run = Run.create(tmp_path / "runs" / "a", {"seed": 0})

    def heartbeat() -> datetime:
        return datetime.fromisoformat(run.status["heartbeat"])

    first = heartbeat()
    deadline = time.monotonic() + 10
    while heartbeat() <= first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert heartbeat() > first
    assert run.status["status"] == "running"
    for n in range(50):  # neither writer loses what the other wrote
        run.set_status(step=n)
        assert run.status["step"] == n
    run.set_status("done")
    run.close()
    last = heartbeat()
    time.sleep(0.1)
    assert heartbeat() == last
    assert run.status["status"] == "done"
    until = time.monotonic() + 10
    while any(t.name == "progress" for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(t.name == "progress" for t in threading.enumerate())  # it ends with the work


WORK = {
    **{name: ["eval", name, "run=none"] for name in ("knn", "probe", "quality", "cluster", "anomaly", "retrieval")},
    "dry run": ["pretrain", "--dry-run"],
    "inspect": ["data", "inspect", "--strict"],
}


@pytest.mark.parametrize("what", WORK)
def test_commands_report_tasks(cli, monkeypatch, what):
    """Every evaluator reports a part with a known total, and every command is a task."""
    opened: list[list[progress.Task]] = []
    task = progress.Task

    class Seen(task):  # type: ignore[misc, valid-type]
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append([*progress._tasks, self])

    monkeypatch.setattr(progress, "Task", Seen)
    small = ["device=cpu", "device.threads=1", "backbone.width=4"]
    small += ["evaluator.baselines=false"] if what in ("knn", "probe", "anomaly", "retrieval") else []
    assert cli(*WORK[what], *(small if what != "inspect" else [])).code == 0
    assert opened[0][0].label == WORK[what][0]
    if WORK[what][0] == "eval":
        inside = [parts for parts in opened if len(parts) > 2 and parts[1].label == what]
        assert any(part.total for parts in inside for part in parts)
        assert all(part.done == part.total for parts in inside for part in parts[2:] if part.total)
    assert progress._tasks == []


def test_training_is_a_task(cli, monkeypatch):
    from sslcli.training.loop.trainer import Trainer

    step, seen = Trainer.step, []

    def watched(self, *args):
        seen.append(progress.describe(progress._tasks, time.monotonic()))
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", watched)
    assert cli("pretrain", *SMOKE).code == 0
    assert [line.split(",")[1].strip() for line in seen if "training" in line] == [f"step {n}/4" for n in range(4)]
    assert list(Path("runs").glob("2*"))
