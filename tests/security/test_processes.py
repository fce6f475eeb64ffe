"""Security of multi-process runs: local sockets only, no import or unpickling on request of a peer, and bounded waits."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from sslcli.errors import MachineError, RequestError
from sslcli.nn import dist
from sslcli.runtime import processes, rendezvous
from sslcli.runtime.folders import remove_folder
from tests.conftest import SMOKE

TINY = ["pretrain", *SMOKE, "train.batch_size=16", "train.eval_every=0"]


def listening(pid: int) -> set[str]:
    """Addresses (hexadecimal) of the sockets on which a process and its children listen."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    mine = set()
    for p in pids:
        for fd in Path(f"/proc/{p}/fd").iterdir():
            try:
                mine.add(os.readlink(fd))
            except OSError:
                continue
    lines = [line.split() for f in ("tcp", "tcp6") for line in Path(f"/proc/net/{f}").read_text().splitlines()[1:]]
    return {w[1].split(":")[0] for w in lines if w[3] == "0A" and f"socket:[{w[9]}]" in mine}


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_local_processes_listen_on_loopback_only(tmp_path):
    """Also, random.py and torch.py beside the data are not executed by the second process."""
    for name in ("random", "torch", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/ran-{name}', 'w'); raise SystemExit(9)")
    env = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [str(Path(sys.executable).with_name("sslcli")), *TINY, "train.steps=100000", "train.devices=2"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        found, until = set(), time.monotonic() + 90
        while process.poll() is None and not list(tmp_path.glob("runs/2*/metrics.jsonl")) and time.monotonic() < until:
            found |= listening(process.pid)
            time.sleep(0.05)
        found |= listening(process.pid)
        stores = list(tmp_path.glob("sslcli-*"))
        assert [stat.S_IMODE(s.stat().st_mode) for s in stores] == [0o700]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
    finally:
        process.kill()
    assert found
    assert found <= LOOPBACK
    assert list(tmp_path.glob("ran-*")) == []
    assert list(tmp_path.glob("sslcli-*")) == []


def test_payload_in_store_has_no_folders(monkeypatch):
    """Whoever reaches the port of a launcher's store can write a payload; no module is imported for it."""
    store = torch.distributed.HashStore()
    store.set("job/1", json.dumps({"word": "pretrain", "folders": ["/evil"], "cfg": {}}))
    assert processes._next_payload(store, 1) == {"word": "pretrain", "cfg": {}}


def test_worker_trusts_only_its_command_line(tmp_path, monkeypatch):
    from sslcli.cli import worker
    from sslcli.config import instantiate

    monkeypatch.setattr(instantiate, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(processes, "run_worker", lambda work: len(instantiate.trusted_folders()))
    assert worker.main(["pretrain", "--config-dir", str(tmp_path), "train.steps=1"]) == 1
    assert instantiate.trusted_folders() == [str(tmp_path.resolve())]


def test_rank0_sends_no_folders(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "launcher_store", lambda: store)
    group = processes._WorkerGroup(processes.ProcessInfo(0, 2, 0, 2), "")
    group.start(print, {"word": "eval", "folders": ["/mine"]})
    assert json.loads(store.get(f"job/{group.turn}")) == {"word": "eval"}


def test_error_in_store_becomes_error(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "launcher_store", lambda: store)
    group = processes._WorkerGroup(processes.ProcessInfo(0, 2, 0, 2), "")
    told = {"rank": 1, "host": "h", "kind": "nearest", "message": "m", "hint": "x"}
    store.set(f"error/{group.turn}", json.dumps(told))
    assert type(group._reported()) is MachineError


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_collectives_do_not_unpickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = {"a": (1, 2.5, None, "b"), "t": [torch.arange(3)], "n": True}
    assert str(dist._decode(dist._encode(value))) == str(value)
    for attack in (dist._encode(Evil()), torch.frombuffer(bytearray(pickle.dumps(Evil())), dtype=torch.uint8)):
        with pytest.raises(Exception, match=r"(?i)weights_only|unpickl|magic|invalid"):
            dist._decode(attack)
    assert not Path("owned").exists()


# ------------------------------------------------------------------------------------------------ a launcher's variables


@pytest.fixture
def left_over(monkeypatch):
    """Variables that a torchrun session may leave in the environment, and short timeouts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendezvous, "JOIN_TIMEOUT", 0.6)
    monkeypatch.setattr(rendezvous, "NOTICE_AFTER", 0.2)
    monkeypatch.setattr(rendezvous, "_stores", {})
    monkeypatch.setattr(processes, "GRACE", 0.2)
    return port


@pytest.mark.parametrize("rank, whom", [("0", "1 other process of WORLD_SIZE=2"), ("1", "process 0 of 2")])
def test_leftover_rank_variables_time_out(rank, whom, cli, left_over, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    result = cli(*TINY)
    assert result.code == 3, result
    assert f"waiting for {whom} at 127.0.0.1:{left_over}" in result.err
    assert "unset RANK WORLD_SIZE" in result.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_leftover_rank_variables_ignored_by_local_commands(rank, cli, left_over, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    for words in (["list", "methods"], ["runs"], ["pretrain", "--help"]):
        assert cli(*words).code == 0


def test_ctrl_c_ends_waiting(cli, left_over, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(rendezvous, "JOIN_TIMEOUT", 60.0)
    sleep = time.sleep

    def interrupted(seconds: float) -> None:
        sleep(seconds)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(time, "sleep", interrupted)
    assert cli(*TINY).code == 130
    monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    assert cli(*TINY).code == 75


@pytest.mark.parametrize(
    "name, value", [("RANK", "x"), ("RANK", "2"), ("WORLD_SIZE", "-1"), ("MASTER_ADDR", ""), ("MASTER_PORT", "99999")]
)
def test_inconsistent_launcher_variables(name, value, cli, left_over, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(name, value)
    result = cli(*TINY)
    assert result.code == 2, result
    assert "unset RANK WORLD_SIZE" in result.err


def test_port_in_use_error(left_over, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with socket.socket() as taken:
        taken.bind(("", left_over))
        taken.listen()
        with pytest.raises(MachineError, match="cannot listen at"):
            rendezvous.launcher_store()


def test_launcher_info_is_validated(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RequestError, match="do not fit"):
        rendezvous.launcher_info()


def test_remove_folder_during_writes(tmp_path):
    """The file store recreates its file whenever a process reads it."""
    folder = tmp_path / "sslcli-store"
    folder.mkdir()
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                (folder / "store").open("a").close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            folder.mkdir(exist_ok=True)
            remove_folder(folder)
            assert not folder.exists()
    finally:
        ended.set()
        writer.join()
    assert list(tmp_path.iterdir()) == []
