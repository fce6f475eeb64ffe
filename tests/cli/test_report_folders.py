"""Which folder `sslcli runs report NAME` is about: a run, or runs that are compared."""

from __future__ import annotations

import pytest

from sslcli.cli.commands.report import find_folder
from sslcli.errors import RequestError

FIRST, SECOND = "2026-01-01_10-00-00-000000", "2026-01-02_10-00-00-000000"


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "sweep"
    for sweep in (FIRST, SECOND):
        for i in range(2):
            (folder / sweep / f"{i}_simclr").mkdir(parents=True)
            (folder / sweep / f"{i}_simclr" / "status.json").write_text("{}")
        (folder / sweep / "jobs").mkdir()
        (folder / sweep / "multirun.yaml").write_text("")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        f"runs/sweep/{FIRST}",
        f"sweep/{FIRST}",
        FIRST,
        FIRST[:10],
        f"runs/sweep/{FIRST}/jobs",
        f"sweep/{FIRST}/multirun.yaml",
    ],
)
def test_a_sweep_is_found(sweeps, name):
    assert find_folder(name).resolve() == sweeps / FIRST


@pytest.mark.parametrize("name", ["sweep", "runs/sweep", "2026-01"])
def test_of_several_sweeps_the_error_says_what_to_type(sweeps, name):
    with pytest.raises(RequestError, match="fits 2 folders of runs") as error:
        find_folder(name)
    assert f"sslcli runs report runs/sweep/{SECOND}" in error.value.hint


def test_the_folder_of_the_only_sweep_is_that_sweep(sweeps):
    (sweeps / SECOND).rename(sweeps.parent.parent / "elsewhere")
    assert find_folder("runs/sweep").resolve() == sweeps / FIRST
    assert find_folder(str(sweeps.parent.parent / "elsewhere")).name == "elsewhere"


def test_a_run_comes_before_a_sweep_of_its_name(sweeps):
    (sweeps.parent / f"{FIRST}_byol").mkdir()
    (sweeps.parent / f"{FIRST}_byol" / "status.json").write_text("{}")
    assert find_folder(f"{FIRST}_b").name == f"{FIRST}_byol"
    assert find_folder(f"sweep/{FIRST}/1_simclr").name == "1_simclr"
    assert find_folder(str(sweeps / FIRST / "1_simclr")).name == "1_simclr"
    with pytest.raises(RequestError, match="there is no run `nothing`"):
        find_folder("nothing")
