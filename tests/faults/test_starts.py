"""Four starts within a second, twenty times: eighty complete run folders."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sslcli.config import compose
from sslcli.errors import SslError
from sslcli.runs.run import Run


def start_twenty(child: int, begin: float) -> None:
    """Start up to the run folder: its name from `hydra.run.dir`, the folder from `Run.create`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    cfg = compose.compose("pretrain", [])
    HydraConfig.instance().set_config(cfg)
    for i in range(20):
        time.sleep(max(0.0, begin + 0.05 * i + 0.003 * child - time.time()))
        OmegaConf.clear_cache(cfg)  # so that each start resolves the time again
        Run.create(Path(str(cfg.hydra.run.dir)), {"child": child, "i": i}, numbered=True).close()


def fork(task: Callable[[int], None], children: int) -> list[int]:
    """The exit codes of child processes that ran `task(child)`: 0, or the code of the error."""
    pids = []
    for child in range(children):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                task(child)
                code = 0
            except SslError as e:
                print(f"child {child}: {e.message}", file=sys.stderr, flush=True)
                code = e.code
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_eighty_simultaneous_starts_get_own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_RUNS", str(tmp_path / "runs"))
    begin = time.time() + 2
    assert fork(lambda child: start_twenty(child, begin), 4) == [0] * 4
    folders = [p for p in (tmp_path / "runs").iterdir() if not p.is_symlink()]
    assert len(folders) == 80
    made = {(Run(p).config["child"], Run(p).config["i"]) for p in folders}
    assert made == {(c, i) for c in range(4) for i in range(20)}
    assert (tmp_path / "runs" / "latest").resolve() in folders
    assert not list((tmp_path / "runs").glob(".latest*"))


def test_one_of_four_processes_gets_folder(tmp_path):
    for i in range(20):
        begin = time.time() + 0.02

        def start(child: int, path: Path = tmp_path / str(i), begin: float = begin) -> None:
            time.sleep(max(0.0, begin - time.time()))
            Run.create(path, {"child": child})

        codes = fork(start, 4)
        assert sorted(codes) == [0, 2, 2, 2]
        assert Run(tmp_path / str(i)).config["child"] == codes.index(0)


def test_second_start_at_same_time_gets_number(tmp_path):
    runs = [Run.create(tmp_path / "a", {"i": i}, numbered=True) for i in range(3)]
    assert [run.path.name for run in runs] == ["a", "a_2", "a_3"]
    assert [run.config["i"] for run in runs] == [0, 1, 2]
    for run in runs:
        run.close()


@pytest.mark.parametrize(
    ("overrides", "numbered"),
    [([], True), (["hydra.run.dir=runs/mine"], False), (["hydra.mode=MULTIRUN"], False)],
)
def test_only_folders_named_by_time_are_numbered(overrides, numbered):
    assert compose.is_named_by_time(compose.compose("pretrain", overrides).hydra) is numbered
