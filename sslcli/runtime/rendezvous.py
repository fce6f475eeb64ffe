"""Rendezvous of the processes of one run: rank and world size, the store that they share, and the process group.

With `train.devices=N` all processes are on this machine and belong to this user: the store is a file in a folder that only
the user can open, and gloo and NCCL are bound to the loopback interface. Under a launcher (torchrun, Slurm) the store is
torch's TCPStore at MASTER_ADDR:MASTER_PORT, and whoever reaches that port is trusted: docs/explanation/security.md.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from sslcli import console
from sslcli.errors import MachineError, RequestError, SslError

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)
JOIN_TIMEOUT = 300.0  # seconds in which the processes of a launcher must connect
NOTICE_AFTER = 5.0  # seconds of waiting after which a line is printed
HINT = "if no torchrun or cluster started this, the variables are left over: unset RANK WORLD_SIZE"


@dataclass(frozen=True)
class ProcessInfo:
    """Rank and number of processes, over all machines and on this one."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def under_launcher() -> bool:
    """Whether torchrun or a like launcher started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launcher_info() -> ProcessInfo:
    """This process by the variables of its launcher. RequestError where they are inconsistent."""
    words = [os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")]
    words += [os.environ.get("LOCAL_RANK", words[0]), os.environ.get("LOCAL_WORLD_SIZE", words[1])]
    if not all(w.isascii() and w.isdigit() for w in words) or int(words[0]) >= int(words[1]):
        raise RequestError(f"RANK={words[0]} and WORLD_SIZE={words[1]} in the environment do not fit together", HINT)
    return ProcessInfo(*map(int, words))


def process_info(devices: int | str = 1, kind: str = "cpu") -> ProcessInfo:
    """This process by the variables of its launcher, or by `train.devices` (an integer, or auto: every GPU)."""
    if under_launcher():
        info = launcher_info()
        if devices not in ("auto", 1, info.world_size):
            raise RequestError(
                f"train.devices={devices}, but torchrun started {info.world_size} processes", "leave train.devices out"
            )
        return info
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    count = max(1, gpus) if devices == "auto" else int(devices)
    if kind == "cuda" and count > gpus:
        hint = f"train.devices={gpus}" if gpus else "device=cpu; `sslcli doctor` shows what torch sees"
        raise MachineError(f"train.devices={count}, but torch sees {gpus} CUDA device(s)", hint)
    return ProcessInfo(0, count, 0, count)


class PollingWait:
    """A wait for other processes in short sleeps, so that signals can end it; prints once whom it waits for."""

    def __init__(self, timeout: float | None = None, hint: str | None = None):
        self.timeout, self.hint = timeout, hint
        self.start, self.printed = time.monotonic(), False

    def sleep(self, event: str) -> None:
        """One short sleep. MachineError after the timeout."""
        waited = time.monotonic() - self.start
        if self.timeout is not None and waited > self.timeout:
            raise MachineError(f"timed out after {console.human_time(waited)} waiting for {event}", self.hint)
        if waited > NOTICE_AFTER and not self.printed:
            self.printed = True
            console.say(f"waiting for {event}")
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- one machine


def local_store(folder: Path, world_size: int) -> dist.Store:
    """The store of processes on this machine: a file in a private folder. No port is opened."""
    return dist.FileStore(str(folder / "store"), world_size)


def use_loopback() -> None:
    """Bind process groups created from here on to the loopback interface."""
    name = next((n for _, n in socket.if_nameindex() if n.startswith("lo")), None)
    if name is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name


# -------------------------------------------------------------------------------------------------------- a launcher

_stores: dict[int, dist.Store] = {}  # pid -> store: a connection does not survive a fork


def launcher_store() -> dist.Store:
    """The store of the launcher's processes; the first call connects, or listens in process 0. MachineError on timeout."""
    if os.getpid() not in _stores:
        _stores[os.getpid()] = _connect(launcher_info())
    return dist.PrefixStore("sslcli", _stores[os.getpid()])


def hosts_store() -> bool:
    """Whether the store ends with this process: torchrun's agent hosts one, other launchers leave it to process 0."""
    return os.environ.get("RANK") == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _connect(info: ProcessInfo) -> dist.Store:
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdigit() or not 0 <= int(port) < 1 << 16:
        raise RequestError(
            f"RANK={info.rank} and WORLD_SIZE={info.world_size} are set, but MASTER_ADDR={host} and MASTER_PORT={port} "
            "are no address",
            HINT,
        )
    wait = PollingWait(JOIN_TIMEOUT, HINT)
    while True:
        try:
            if not hosts_store():  # signals do not end torch's own attempts, and each prints a line
                socket.create_connection((host, int(port)), timeout=2).close()
            store = dist.TCPStore(
                host,
                int(port),
                info.world_size,
                is_master=hosts_store(),
                timeout=datetime.timedelta(seconds=2),
                wait_for_workers=False,
                multi_tenant=True,
            )
            store.set_timeout(COLLECTIVE_TIMEOUT)
            return store
        except (OSError, dist.DistError, RuntimeError, ValueError) as e:
            if hosts_store():
                raise MachineError(f"cannot listen at {host}:{port}: {str(e).splitlines()[0][:200]}", HINT) from None
            wait.sleep(f"process 0 of {info.world_size} at {host}:{port} (this one has RANK={info.rank})")


def wait_for_workers() -> None:
    """Block process 0 of a launcher until all others have connected. MachineError after `JOIN_TIMEOUT` seconds."""
    info, store = launcher_info(), launcher_store()
    wait, missing = PollingWait(JOIN_TIMEOUT, HINT), set(range(1, info.world_size))
    at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    while missing := {r for r in missing if not store.check([f"here/{r}"])}:
        others = "1 other process" if len(missing) == 1 else f"{len(missing)} other processes"
        wait.sleep(f"{others} of WORLD_SIZE={info.world_size} at {at}")


# ------------------------------------------------------------------------------------------------- group and errors


def init_process_group(store: dist.Store, info: ProcessInfo, device: torch.device, turn: int) -> None:
    """torch's default process group over `store`: gloo, and NCCL for CUDA tensors. `turn` numbers the groups of a run."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"group/{turn}", store),
        rank=info.rank,
        world_size=info.world_size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )


def report_error(store: dist.Store, info: ProcessInfo, turn: int, error: SslError) -> None:
    """Write an error of this process to the store, for `read_error`."""
    content = {"rank": info.rank, "host": socket.gethostname(), "kind": type(error).__name__}
    content |= {"message": error.message, "hint": error.hint}
    with contextlib.suppress(Exception):  # rank 0 may be gone
        store.set(f"error/{turn}", json.dumps(content))


def read_error(store: dist.Store, turn: int, world_size: int) -> SslError | None:
    """The error that a worker reported, of the same type; None without one."""
    key = f"error/{turn}"
    if not store.check([key]):
        return None
    content = json.loads(store.get(key))
    kind = {c.__name__: c for c in SslError.__subclasses__()}.get(content["kind"], MachineError)
    return kind(
        f"process {content['rank']} of {world_size} on {content['host']}: {content['message']}", content["hint"]
    )


def is_peer_error(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "nccl", "connection", "broken pipe", "store", "peer", "timed out")
    )
