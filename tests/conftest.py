"""Fixtures: the command line in this process, which imports once, and the folder of real data."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from benchmarks.zygote import Zygote

os.environ.setdefault("HYDRA_FULL_ERROR", "1")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")  # fp32 by default and the same rounding with and without AMX

hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("tests")

LONG = ("tests/runtime/test_process", "tests/cli/test_launchers", "tests/cli/test_sweep", "tests/faults/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start many processes come first, so that parallel workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


CHECKOUT = str(Path(__file__).resolve().parents[1]) + os.sep
CACHES = ("__pycache__", ".pytest_cache", "pytest-cache-files-", ".hypothesis", ".coverage")
WRITES = {"os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.truncate": (0,), "os.rename": (0, 1)}
WRITES |= {"os.symlink": (1,), "os.link": (1,)}  # audit event -> which of its arguments are written
_leaks: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: records and refuses writes of this process into the checkout. A relative path is located below the working
    folder (`nothing_outside`), or below an open folder."""
    if event == "open":
        if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        written: tuple[int, ...] = (0,)
    else:
        written = WRITES.get(event, ())
    for i in written:
        path = os.fspath(args[i]) if isinstance(args[i], os.PathLike) else args[i]
        if isinstance(path, str) and path.startswith(CHECKOUT) and not any(cache in path for cache in CACHES):
            _leaks.append(f"{event} {path}")
            raise RuntimeError(f"a test writes outside its temporary folder: {_leaks[-1]}")


sys.addaudithook(_watch)


@pytest.fixture(scope="session", autouse=True)
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of tests, so that a relative path is neither in the checkout nor in the runs of the user."""
    here = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name in ("SSLCLI_RUNS", "SSLCLI_DATA"):
            patch.delenv(name, raising=False)
        yield here


@pytest.fixture(autouse=True)
def nothing_outside(empty_folder: Path) -> Iterator[None]:
    """Fails a test that writes outside its temporary folder; undoes its change of the working folder."""
    before = Path.cwd()
    yield
    os.chdir(before)
    leaks = [*_leaks, *(str(p) for p in empty_folder.iterdir())]
    _leaks.clear()
    assert not leaks, f"written outside the test's temporary folder: {leaks}"


@pytest.fixture(autouse=True)
def no_trusted_folders() -> Iterator[None]:
    """Folders of --config-dir in one test are not those of the next, whose runs would record them."""
    from sslcli.config import instantiate

    before = list(instantiate._folders)
    yield
    instantiate._folders[:] = before


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Those of torch's global generator, in each run of a test."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_flush() -> Iterator[None]:
    """Nothing waits for the disk: only a power failure shows whether bytes were flushed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: os.fstat(fd) and None)
        yield


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Files and choices of sslcli are composed once: see `hydra_cache`."""
    from tests import hydra_cache

    with pytest.MonkeyPatch.context() as patch:
        hydra_cache.install(patch)
        yield


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Real processes at low cost: forks of one that has imported everything."""
    from benchmarks.zygote import Zygote

    started = Zygote()
    yield started
    started.close()


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.strip().splitlines()[-1]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """`cli("pretrain", "method=byol")` in an empty folder: exit code, stdout, stderr."""
    from sslcli.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("SSLCLI_RUNS", "SSLCLI_DATA", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*argv: str) -> Result:
        for name in ("SSLCLI_QUIET", "SSLCLI_VERBOSE", "SSLCLI_JSON"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("sys.argv", ["sslcli", *argv])
        capfd.readouterr()
        code = main(list(argv))
        captured = capfd.readouterr()
        for name in ("SSLCLI_QUIET", "SSLCLI_VERBOSE", "SSLCLI_JSON"):
            os.environ.pop(name, None)
        assert "Traceback" not in captured.err, captured.err
        return Result(code, captured.out, captured.err)

    return run


class Killed(BaseException):
    """Simulates a kill: sslcli does not catch it."""


@contextlib.contextmanager
def killed_when_saved(step: int) -> Iterator[None]:
    """Kills the training inside when the checkpoint of this step exists."""
    from sslcli.training.loop.trainer import Trainer

    save = Trainer.save

    def saved(self: Trainer, required: bool = False) -> None:
        save(self, required)
        if self.state.step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", saved)
        with pytest.raises(Killed):
            yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets, SSLCLI_TEST_DATA; tests that require it are skipped without it."""
    folder = os.environ.get("SSLCLI_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SSLCLI_TEST_DATA names no folder")
    return Path(folder)


# A run of a second or two: the whole path, small.
SMOKE = ["experiment=smoke", "device=cpu", "device.threads=1", "backbone.width=8"]
