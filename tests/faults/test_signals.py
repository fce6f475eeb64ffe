"""Real signals: the step is finished and saved, the exit code is correct, no process remains, and resuming is bit-identical."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zygote import Zygote, outcome, until
from sslcli.runs import checkpoint
from sslcli.runs.run import Run

WORDS = [
    "pretrain",
    "dataset=digits",
    "backbone.width=8",
    "device=cpu",
    "device.threads=1",
    "train.steps=240",
    "train.batch_size=32",
    "train.eval_every=2",
    "logger.log_every=1",
]
SIGNALS = ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGINT"]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: a training outlives its terminal
    SIGNALS.append("SIGHUP")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc for processes")


def the_run(home: Path) -> Path | None:
    return next(home.glob("runs/2*/config.yaml"), Path()).parent if list(home.glob("runs/2*/config.yaml")) else None


def lines(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(t) for t in path.read_text().split("\n")[:-1]] if path.exists() else []


def last_step(run: Path) -> int:
    return max((line["step"] for line in lines(run)), default=0)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "events.jsonl"
    found = [json.loads(t) for t in path.read_text().splitlines()] if path.exists() else []
    return [e for e in found if e["event"] == kind]


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("whole")
    assert zygote.run(WORDS, home, home / "words.txt") == 0, (home / "words.txt").read_text()
    run = the_run(home)
    assert run is not None
    return outcome(run)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_signals_at_random_times_save_and_resume(zygote, tmp_path, whole, seed):
    dice, words = random.Random(seed), tmp_path / "words.txt"
    names = dice.sample(SIGNALS, len(SIGNALS))
    pid = zygote.start(WORDS, tmp_path, words)
    run = until(lambda: the_run(tmp_path))
    for i, name in enumerate(names):
        begun, number = last_step(run), getattr(signal, name)
        until(lambda: len(events(run, "resumed")) == i and last_step(run) > begun)  # noqa: B023
        time.sleep(dice.uniform(0, 0.08))
        os.kill(pid, signal.SIGSTOP)  # so that its current step can be read
        step = last_step(run)
        os.kill(pid, number)
        sent = time.monotonic()
        os.kill(pid, signal.SIGCONT)
        assert zygote.wait(pid) == (130 if name == "SIGINT" else 75), words.read_text()
        assert time.monotonic() - sent < 10
        said = events(run, "signal")[-1]
        assert said["name"] == name
        assert step <= said["step"] <= step + 2
        newest = checkpoint.existing(run / "checkpoints")[0]
        assert newest.name == f"step-{said['step']:010d}"
        assert checkpoint.verify(newest) is None
        assert Run(run).status["status"] == "interrupted"
        assert f"stopped by {name} at step {said['step']:,}; saved" in words.read_text()
        pid = zygote.start(["resume", str(run)], tmp_path, words)
    assert zygote.wait(pid) == 0, words.read_text()
    assert outcome(run) == whole


def test_second_interrupt_exits_immediately(zygote, tmp_path):
    """With steps of seconds, a second Ctrl-C does not wait for the end of a step."""
    slow = ["train.steps=50", "train.batch_size=1437", "train.eval_every=0", "backbone.width=96"]
    words = tmp_path / "words.txt"
    pid = zygote.start([*WORDS, *slow], tmp_path, words)
    run = until(lambda: the_run(tmp_path))
    until(lambda: checkpoint.existing(run / "checkpoints"))
    time.sleep(0.3)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    sent = time.monotonic()
    os.kill(pid, signal.SIGINT)
    assert zygote.wait(pid) == 130
    assert time.monotonic() - sent < 3
    assert "exiting now; the last checkpoint is intact" in words.read_text()
    assert not events(run, "signal")
    assert checkpoint.verify(checkpoint.existing(run / "checkpoints")[0]) is None


# ---------------------------------------------------------------------------------------------------- workers and the lock


def family(leader: int) -> list[int]:
    """The running processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def streamed(photos: Path) -> list[str]:
    data = ["dataset=image_folder", f"dataset.path={photos}", "dataset.resident=false", "backbone=convnet"]
    return [*WORDS, *data, "backbone.width=4", "train.batch_size=8", "device.workers=2", "train.save_every=1"]


@needs_proc
def test_no_data_worker_remains(zygote, tmp_path, photos):
    words = tmp_path / "words.txt"
    pid = zygote.start(streamed(photos), tmp_path, words)
    run = until(lambda: the_run(tmp_path))
    until(lambda: last_step(run) > 2)
    assert len(family(pid)) >= 3
    os.killpg(pid, signal.SIGXCPU)  # workers receive it too and ignore it
    assert zygote.wait(pid) == 75, words.read_text()
    until(lambda: not family(pid), 5)


@needs_proc
def test_killed_run_releases_lock_despite_workers(zygote, tmp_path, photos):
    """After SIGKILL the run can be locked immediately, though its workers end a little later."""
    words = tmp_path / "words.txt"
    pid = zygote.start(streamed(photos), tmp_path, words)
    run = until(lambda: the_run(tmp_path))
    until(lambda: last_step(run) > 2)
    os.kill(pid, signal.SIGKILL)
    assert zygote.wait(pid) == -signal.SIGKILL
    assert family(pid)  # the orphans
    again = Run(run)
    again.lock()
    again.close()
    until(lambda: not family(pid), 20)


def test_one_of_two_processes_locks_run(zygote, tmp_path, whole):
    words = tmp_path / "words.txt"
    pid = zygote.start(WORDS, tmp_path, words)
    run = until(lambda: the_run(tmp_path))
    until(lambda: last_step(run) > 2)
    os.kill(pid, signal.SIGTERM)
    assert zygote.wait(pid) == 75
    pids = [zygote.start(["resume", str(run)], tmp_path, tmp_path / f"words-{i}.txt") for i in range(2)]
    codes = [zygote.wait(pid) for pid in pids]
    assert sorted(codes) == [0, 6]
    winner, loser = codes.index(0), codes.index(6)
    said = (tmp_path / f"words-{loser}.txt").read_text()
    assert f"is in use by pid {pids[winner]} on {os.uname().nodename} since 20" in said
    assert "hint: wait for it, or stop that process" in said
    assert outcome(run) == whole
