"""The environment of a process: hang-up of its terminal, its working folder, packages and file system."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sslcli.cli.exceptions import to_ssl_error
from sslcli.data.public import digits
from sslcli.errors import MachineError
from sslcli.runs import files
from sslcli.runtime import rendezvous
from sslcli.runtime.signals import stop_signals
from sslcli.training.loop import saver


@pytest.fixture
def hang_up():
    """Sets the disposition of SIGHUP, as the parent of a process would."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda action: signal.signal(signal.SIGHUP, action)
    signal.signal(signal.SIGHUP, before)


def test_hang_up_under_nohup_is_ignored(hang_up):
    hang_up(signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop


def test_hang_up_of_a_terminal_stops(hang_up, monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    hang_up(signal.SIG_DFL)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP


@pytest.mark.parametrize("word", ["100", "\u00b2", "", "later"])
def test_end_of_another_slurm_job_is_ignored(monkeypatch, word):
    monkeypatch.setenv("SLURM_JOB_END_TIME", word)
    with stop_signals() as stop:
        assert not stop


def test_end_of_this_slurm_job_stops(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 5))
    with stop_signals() as stop:
        assert stop.number == signal.SIGTERM


def test_working_folder_was_removed(cli, tmp_path, monkeypatch):
    for words in (["runs"], ["doctor"], ["pretrain", "method=simsiam"], ["eval", "knn"]):
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        result = cli(*words)
        assert result.code == 2
        assert "the working folder no longer exists" in result.err
        monkeypatch.chdir(tmp_path)


def test_broken_package_is_reported(cli, monkeypatch):
    def read() -> None:
        raise ImportError("numpy.dtype size changed", name="sklearn.datasets")

    monkeypatch.setattr(digits, "_read_digits", read)
    result = cli("pretrain", "method=simsiam", "experiment=smoke", "--dry-run")
    assert result.code == 3
    assert "a package cannot be imported" in result.err
    assert "sslcli doctor" in result.err
    assert "Traceback" not in result.err


def test_doctor_imports_installed_packages(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    result = cli("doctor", "--json")
    assert result.code == 3
    assert [p["what"].partition(":")[0] for p in json.loads(result.out)["problems"]] == [
        "scikit-learn cannot be imported"
    ]


def test_import_errors_become_messages():
    missing = OSError("libcudart.so.12: cannot open shared object file: No such file or directory")
    assert isinstance(to_ssl_error(missing), MachineError)
    assert isinstance(to_ssl_error(ImportError("no", name="torch._C")), MachineError)
    assert to_ssl_error(ImportError("no", name="sslcli.nowhere")) is None  # an internal error
    assert to_ssl_error(OSError("something else")) is None


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_folder_without_fsync(tmp_path, monkeypatch, code):
    def fsync(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            files.sync_folder(tmp_path)
    else:
        files.sync_folder(tmp_path)


def test_run_folder_moved_during_training(cli, monkeypatch):
    def save(folder: Path, *args: object, **kwargs: object) -> None:
        folder.parent.rename("moved")
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(folder))

    monkeypatch.setattr(saver.checkpoint, "save", save)
    result = cli("pretrain", "method=simsiam", "experiment=smoke", "backbone.width=8", "device=cpu")
    assert result.code == 5
    assert "the run folder was moved or removed" in result.err


def test_auto_device_without_gpu_is_cpu(monkeypatch):
    monkeypatch.setattr(rendezvous.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MachineError) as found:
        rendezvous.process_info(1, "cuda")
    assert "device=cpu" in (found.value.hint or "")
