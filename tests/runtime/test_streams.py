"""Closed or full output streams do not end a run; results that cannot be written change the exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sslcli.cli import main
from sslcli.runtime import streams
from sslcli.training.loop.trainer import Trainer
from tests.conftest import SMOKE


def unread() -> io.TextIOWrapper:
    """The writing end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def run_unread(*argv: str) -> int:
    """The exit code of a command whose output pipe is closed."""
    with unread() as out, unread() as err, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = main(list(argv))
        assert os.readlink(f"/proc/self/fd/{err.fileno()}") == os.devnull  # it was met, and put aside
        return code


def status() -> tuple[str, int]:
    found = [json.loads(p.read_text()) for p in Path("runs").glob("**/status.json") if not p.parent.is_symlink()]
    assert found
    return "+".join(sorted({s["status"] for s in found})), len(found)


def test_training_survives_closed_pipe(cli):
    assert run_unread("pretrain", *SMOKE) == 0
    assert status() == ("done", 1)


def test_sweep_survives_closed_pipe(cli):
    assert run_unread("pretrain", "-m", *SMOKE, "seed=0,1") == 0
    assert status() == ("done", 2)


def test_ctrl_c_with_closed_pipe(cli, monkeypatch):
    step = Trainer.step

    def interrupted(self, *args):
        step(self, *args)
        if self.state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert run_unread("pretrain", *SMOKE) == 130
    assert status() == ("interrupted", 1)
    assert max(p.name for p in Path("runs").glob("2*/checkpoints/step-*")) > "step-0000000001"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffering", [0, -1], ids=["unbuffered", "buffered"])
def test_full_disk_changes_exit_code(monkeypatch, capsys, buffering):
    with (
        contextlib.suppress(OSError),
        io.TextIOWrapper(open("/dev/full", "wb", buffering), write_through=not buffering) as full,
    ):
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["list", "methods"]) == 5
    assert "error: cannot write the results to standard output: No space left on device" in capsys.readouterr().err


def test_text_written_after_disk_has_space():
    class Disk(io.StringIO):
        full = True

        def flush(self) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "full")

    disk = Disk()
    stream = streams.TolerantStream(disk)
    print("kept", file=stream, flush=True)
    assert stream.failure is not None
    disk.full = False
    stream.close()
    assert stream.failure is None
    assert disk.getvalue() == "kept\n"


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_standard_streams(closing, tmp_path):
    words = f"{sys.executable} -m sslcli list optimizers {closing}"
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
