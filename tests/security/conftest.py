"""A finished run that tests change as an attacker would, and a network that refuses everything."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import SMOKE


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    from sslcli.cli import main

    folder, before = tmp_path_factory.mktemp("security"), os.getcwd()
    os.chdir(folder)
    try:
        assert main(["pretrain", *SMOKE, "train.steps=2"]) == 0
    finally:
        os.chdir(before)
    return next(p for p in (folder / "runs").iterdir() if not p.is_symlink())


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the run in the folder where `cli` works."""
    to = tmp_path / "runs" / finished.name
    shutil.copytree(finished, to, symlinks=True)
    return to


def edit(run: Path, group: str, **values: Any) -> None:
    """Changes a group of a run's config.yaml."""
    file = run / "config.yaml"
    cfg = yaml.safe_load(file.read_text())
    cfg[group] = {**cfg[group], **values}
    file.write_text(yaml.safe_dump(cfg))


@pytest.fixture
def offline(monkeypatch) -> list[Any]:
    """No connection is made; what was tried."""
    tried: list[Any] = []

    def refuse(self, address, *args):
        tried.append(address)
        raise ConnectionRefusedError(address)

    def no_names(*args, **kw):
        tried.append(args[0])
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    return tried
