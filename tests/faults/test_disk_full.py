"""A disk that is full, read-only or over its quota: training continues as long as possible, reports it, and loses nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.zygote import outcome
from sslcli.errors import StorageError
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.training.loop.trainer import Trainer

WORDS = [
    "method=byol",
    "dataset=digits",
    "backbone.width=4",
    "device=cpu",
    "device.threads=1",
    "train.steps=7",
    "train.batch_size=64",
    "train.eval_every=0",
    "train.save_every=1",
    "logger.log_every=1",
]
FILES = [
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
    "last.json",
    "encoder.safetensors",
    "encoder.json",
]

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc for the name of a file")


@contextlib.contextmanager
def file_size(limit: int) -> Iterator[None]:
    """The kernel writes no byte beyond `limit` of any file (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_for(monkeypatch: pytest.MonkeyPatch, name: str, steps: range) -> None:
    """From the save of the first of `steps` to the save after the last, files of that name are limited to 16 bytes."""
    now, save, write = [-1], Trainer.save, os.write

    def save_and_tell(self: Trainer, *args, **named) -> None:
        now[0] = self.state.step
        save(self, *args, **named)

    def write_some(fd: int, content) -> int:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if now[0] in steps and name in path.name:
            with file_size(16):
                return write(fd, content)
        return write(fd, content)

    monkeypatch.setattr(Trainer, "save", save_and_tell)
    monkeypatch.setattr(os, "write", write_some)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The outcome of a run on a disk with room."""
    from sslcli.cli import main

    with contextlib.chdir(tmp_path_factory.mktemp("whole")):
        assert main(["pretrain", *WORDS]) == 0
        return outcome(Path("runs/latest").resolve())


@pytest.fixture
def watched(monkeypatch) -> list[int]:
    """Steps of failed saves; at each of them the previous checkpoint is intact and no partial file remains."""
    steps: list[int] = []
    event = Run.event

    def look(self: Run, kind: str, **values) -> None:
        if kind == "save failed":
            folder = self.path / "checkpoints"
            found = checkpoint.existing(folder)
            assert found or not values["step"]
            assert all(checkpoint.verify(p) is None for p in found)
            assert not list(folder.glob(".tmp-*"))
            steps.append(values["step"])
        event(self, kind, **values)

    monkeypatch.setattr(Run, "event", look)
    return steps


def test_disk_full_at_each_file_of_two_saves(cli, monkeypatch, whole, watched):
    for name in FILES:
        watched.clear()
        with monkeypatch.context() as patch:
            full_for(patch, name, range(2, 4))
            result = cli("pretrain", *WORDS)
        assert result.code == 0, (name, result.err)
        assert watched == [2, 3], name
        assert result.err.count("training continues, the previous checkpoint is kept") == 2
        assert "File too large" in result.err
        assert outcome(Path(result.last)) == whole, name


def test_disk_full_while_writing_metrics(cli, monkeypatch, whole, watched):
    """Lines wait in memory until they can be written; until then no checkpoint counts them as written."""
    full_for(monkeypatch, "metrics.jsonl", range(2, 4))
    result = cli("pretrain", *WORDS)
    assert result.code == 0, result.err
    assert watched == [3]
    assert result.err.count("cannot write") == 2  # once for the file, once for the save
    assert outcome(Path(result.last)) == whole


def test_three_failed_saves_exit_5_and_run_resumes(cli, monkeypatch, whole, watched):
    with monkeypatch.context() as patch:
        full_for(patch, "optimizer.safetensors", range(3, 100))
        result = cli("pretrain", *WORDS)
    assert result.code == 5
    assert watched == [3, 4, 5]
    assert "error: cannot save checkpoint step-0000000005: File too large" in result.err
    assert "make room, then sslcli resume" in result.err
    (run,) = [p for p in Path("runs").glob("2*") if Run(p).status["status"] == "failed"]
    assert checkpoint.existing(run / "checkpoints")[0].name == "step-0000000002"
    resumed = cli("resume", run.name)
    assert "resuming at step 2 (bit-exact)" in resumed.err
    assert outcome(run) == whole


def test_first_save_is_required(cli, monkeypatch):
    full_for(monkeypatch, "state.json", range(0, 1))
    result = cli("pretrain", *WORDS)
    assert result.code == 5
    assert "File too large" in result.err


def test_last_save_is_required(cli, monkeypatch, whole):
    """A run is not `done` before its last step is saved."""
    with monkeypatch.context() as patch:
        full_for(patch, "model.safetensors", range(7, 8))
        result = cli("pretrain", *WORDS)
    assert result.code == 5
    (run,) = [p for p in Path("runs").glob("2*") if Run(p).status["status"] == "failed"]
    assert cli("resume", run.name).code == 0
    assert outcome(run) == whole


@pytest.mark.parametrize("code", [errno.EROFS, errno.EDQUOT])
def test_read_only_folder_or_quota_exceeded(cli, monkeypatch, code, whole):
    """No file can be opened for writing from step 3 on (patched, since root can write to read-only folders)."""
    steps, save, opened = [0], Trainer.save, os.open

    def save_and_tell(self, *args, **named):
        steps[0] = self.state.step
        save(self, *args, **named)

    def refuse(path, flags, *args, **named):
        if steps[0] >= 3 and flags & os.O_CREAT and "runs/" in os.fspath(path):
            raise OSError(code, os.strerror(code), path)
        return opened(path, flags, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save_and_tell)
        patch.setattr(os, "open", refuse)
        result = cli("pretrain", *WORDS)
    assert result.code == 5
    assert os.strerror(code) in result.err
    run = sorted(Path("runs").glob("2*"))[-1]
    assert checkpoint.verify(checkpoint.existing(run / "checkpoints")[0]) is None
    assert cli("resume", run.name).code == 0
    assert outcome(run) == whole


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_run_folder_cannot_be_created(cli, monkeypatch, sweep):
    mkdir = os.mkdir

    def refuse(path, *args, **named):
        if "runs" in os.fspath(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        return mkdir(path, *args, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    result = cli("pretrain", *WORDS, *sweep)
    assert result.code == 5
    assert "Read-only file system" in result.err
    assert "SSLCLI_RUNS=FOLDER" in result.err


def test_metrics_are_printed_when_saving_fails(cli, monkeypatch):
    """An evaluation and a ranking print their results, then why they cannot be saved, and exit with 5."""
    assert cli("pretrain", *WORDS, "train.keep=2", "train.save_every=1").code == 0
    mkdir = os.mkdir

    def refuse(path, *args, **named):
        if "eval" in os.fspath(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        return mkdir(path, *args, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    small = ["device=cpu", "evaluator.baselines=false"]
    measured = cli("eval", "knn", *small)
    assert measured.code == 5
    assert re.search(r"^knn.top1 0\.\d+$", measured.out, re.MULTILINE)
    assert "No space left on device" in measured.err
    few = ["evaluator.samples=100", "evaluator.points=50", "evaluator.groups=10", "device=cpu"]
    ranked = cli("select", "latest", *few)
    assert ranked.code == 5
    assert re.search(r"step-0{9}\d +0\.\d+", ranked.out)
    assert "No space left on device" in ranked.err


def test_free_space_is_checked_before_save(tmp_path, monkeypatch):
    import torch

    tensors = {"model": {"w": torch.zeros(2**18)}}  # 1 MB
    checkpoint.save(tmp_path, 1, tensors, {})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * 2**20))
    with pytest.raises(
        StorageError, match=r"step-0000000002: it takes 1.0 MB, and 2.2 times that must be free \(2.0 MB free\)"
    ):
        checkpoint.save(tmp_path, 2, tensors, {})
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["step-0000000001"]


def test_log_failure_does_not_end_run(tmp_path, capsys):
    """Failures to write events, log and status are reported once."""
    run = Run.create(tmp_path / "r", {})
    with file_size(0):
        for _ in range(3):
            run.event("something")
            run.write_log("something")
            run.log(1, 1.0, 1.0, {"loss": 1.0})
        with pytest.raises(StorageError, match=r"metrics\.jsonl"):
            run.metrics_offset()
    assert capsys.readouterr().err.count("File too large") == 3
    with file_size(4):
        run.set_status(step=3)
    assert "File too large" in capsys.readouterr().err
    assert run.status["status"] == "running"
    assert "step" not in run.status
    run.set_status(step=4)
    assert run.status["step"] == 4
    run.close()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_run_on_small_disk(cli, monkeypatch, whole, small_disk):
    monkeypatch.setenv("SSLCLI_RUNS", str(small_disk))
    (small_disk / "filler").write_bytes(bytes(2**19))
    result = cli("pretrain", *WORDS)
    assert result.code == 5, result.err
    (run,) = small_disk.glob("2*")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("save failed") in (1, 3)  # the first must succeed
    assert "MB free" in result.err
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert cli("resume", str(run)).code == 0
    assert outcome(run) == whole
