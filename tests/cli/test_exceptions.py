"""Any path in any key that cannot be used: an error and exit code 2 or 5, never a traceback."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from sslcli.cli.exceptions import JobExit, to_ssl_error
from sslcli.errors import MachineError, RequestError, StorageError

SMALL = ["device=cpu", "device.threads=1", "train.epochs=null", "train.steps=1"]
REQUESTS = {  # what is tested -> a command with PATH for the path that cannot be used
    "init": ["pretrain", *SMALL, "init=PATH"],
    "image_folder": ["pretrain", *SMALL, "dataset=image_folder", "dataset.path=PATH"],
    "list": ["pretrain", *SMALL, "dataset=image_folder", "dataset.path=PATH.csv"],
    "arrays": ["pretrain", *SMALL, "dataset=arrays", "dataset.path=PATH.npz"],
    "series": ["pretrain", *SMALL, "dataset=series", "dataset.path=PATH.npz"],
    "tar": ["pretrain", *SMALL, "dataset=tar", "dataset.path=PATH.tar"],
    "pack": ["pretrain", *SMALL, "dataset=pack", "dataset.path=PATH"],
    "published": ["pretrain", *SMALL, "dataset=cifar10", "dataset.path=PATH"],
    "run folder": ["pretrain", *SMALL, "hydra.run.dir=/PATH"],
    "teacher": ["pretrain", *SMALL, "method=distill", "method.teacher=PATH"],
    "config-dir": ["pretrain", *SMALL, "--config-dir", "PATH"],
    "bench init": ["bench", *SMALL, "init=PATH"],
    "pipeline init": ["pipeline", *SMALL, "init=PATH"],
    "eval run": ["eval", "knn", "run=PATH"],
    "eval dataset": ["eval", "knn", "run=none", "dataset=image_folder", "dataset.path=PATH"],
    "labels": ["eval", "probe", "run=none", "labels=PATH.csv"],
    "resume": ["resume", "PATH"],
    "show": ["runs", "show", "PATH"],
    "compare": ["runs", "compare", "PATH", "PATH"],
    "report": ["runs", "report", "PATH"],
    "report out": ["runs", "report", "latest", "out=PATH/x.html"],
    "select": ["select", "PATH", "PATH"],
    "export": ["export", "PATH", "out=x"],
    "export out": ["export", "latest", "out=PATH"],
    "inspect": ["data", "inspect", "dataset=image_folder", "dataset.path=PATH"],
    "preview out": ["data", "preview", "device=cpu", "out=PATH.png"],
    "pack out": ["data", "pack", "dataset=digits", "out=PATH/x"],
}


def deny_access(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Makes every access to a path that contains `shut` fail with this errno, also for root."""

    def guard(module: Any, function: str) -> None:
        plain = getattr(module, function)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            for path in args[:2]:
                if isinstance(path, str | os.PathLike) and "shut" in str(path):
                    raise OSError(code, os.strerror(code), str(path))
            return plain(*args, **kwargs)

        monkeypatch.setattr(module, function, guarded)

    for function in ("open", "stat", "lstat", "mkdir", "scandir", "listdir", "rename", "replace", "access"):
        guard(os, function)
    for module in ("builtins", "io"):
        guard(__import__(module), "open")


@pytest.mark.parametrize("code", [errno.EACCES, errno.ELOOP], ids=errno.errorcode.get)
@pytest.mark.parametrize("key", REQUESTS)
def test_inaccessible_path(cli, monkeypatch, key, code):
    deny_access(monkeypatch, code)
    result = cli(*(argument.replace("PATH", "shut") for argument in REQUESTS[key]))
    assert result.code in (2, 5), result.err
    assert "error: " in result.err
    assert "shut" in result.err or "latest" in REQUESTS[key], result.err


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG], ids=errno.errorcode.get)
@pytest.mark.parametrize("arguments", [["runs"], ["pretrain", *SMALL], ["eval", "knn"]], ids=lambda a: a[0])
def test_inaccessible_runs_folder(cli, monkeypatch, arguments, code):
    monkeypatch.setenv("SSLCLI_RUNS", "shut")
    deny_access(monkeypatch, code)
    result = cli(*arguments)
    assert result.code in (2, 5), result.err
    assert "shut" in result.err


def test_runs_folder_is_a_file(cli, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCLI_RUNS", "file")
    result = cli("pretrain", *SMALL)
    assert result.code in (2, 5)
    assert "file" in result.err


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((c, StorageError) for c in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)),
        *((c, RequestError) for c in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)),
        *((c, MachineError) for c in (errno.EMFILE, errno.ENOMEM)),
    ],
    ids=lambda x: errno.errorcode.get(x) if isinstance(x, int) else "",
)
def test_errno_to_ssl_error(code, kind):
    for e in (OSError(code, os.strerror(code), "a/b"), JobExit(OSError(code, os.strerror(code), b"a/b"))):
        error = to_ssl_error(e)
        assert type(error) is kind
        assert kind is MachineError or "a/b" in error.message
        assert error.hint


def test_errno_without_file_is_a_bug():
    assert to_ssl_error(OSError(errno.EACCES, "permission denied")) is None
    assert to_ssl_error(FileNotFoundError(errno.ENOENT, "no such file", pytest.__file__)) is not None
    from sslcli import cli

    assert to_ssl_error(FileNotFoundError(errno.ENOENT, "no such file", cli.__file__ + "x")) is None
