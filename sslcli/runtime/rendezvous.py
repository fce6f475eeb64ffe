"""Where the processes of one job meet: which one this is, the store that they share, and the process group.

With `train.devices=N` all are on this machine and of this user: the store is a file in a folder that only the user can open, and
gloo and NCCL are bound to the loopback interface. Under a launcher (torchrun, Slurm) the store is torch's TCPStore at
MASTER_ADDR:MASTER_PORT, and whoever reaches that port is trusted with the job: docs/explanation/security.md.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sslcli import console
from sslcli.errors import MachineError, RequestError

SILENCE = datetime.timedelta(minutes=10)  # of a process in the middle of a job: it is gone
ARRIVAL = 300.0  # seconds in which the processes of a launcher must have arrived
SPEAK = 5.0  # seconds of waiting after which it is said for whom
HINT = "if no torchrun or cluster started this, the variables are left over: unset RANK WORLD_SIZE"


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, over all machines and on this one."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def under_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launched() -> Place:
    """Where this process stands, from a launcher's variables. RequestError where they are not numbers that fit."""
    words = [os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")]
    words += [os.environ.get("LOCAL_RANK", words[0]), os.environ.get("LOCAL_WORLD_SIZE", words[1])]
    if not all(w.isascii() and w.isdigit() for w in words) or int(words[0]) >= int(words[1]):
        raise RequestError(f"RANK={words[0]} and WORLD_SIZE={words[1]} in the environment do not fit together", HINT)
    return Place(*map(int, words))


def place(devices: int | str = 1, kind: str = "cpu") -> Place:
    """Where this process stands, from a launcher's variables or from `train.devices` (a number, or auto: every GPU)."""
    if under_torchrun():
        here = launched()
        if devices not in ("auto", 1, here.world):
            raise RequestError(
                f"train.devices={devices}, but torchrun started {here.world} processes", "leave train.devices out"
            )
        return here
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    count = max(1, gpus) if devices == "auto" else int(devices)
    if kind == "cuda" and count > gpus:
        hint = f"train.devices={gpus}" if gpus else "device=cpu; `sslcli doctor` shows what torch sees"
        raise MachineError(f"train.devices={count}, but torch sees {gpus} CUDA device(s)", hint)
    return Place(0, count, 0, count)


class Patience:
    """A wait for other processes, in slices that signals can end: it says for whom, and may have a limit."""

    def __init__(self, limit: float | None = None, hint: str | None = None):
        self.limit, self.hint = limit, hint
        self.began, self.said = time.monotonic(), False

    def wait(self, whom: str) -> None:
        """One slice. MachineError past the limit."""
        waited = time.monotonic() - self.began
        if self.limit is not None and waited > self.limit:
            raise MachineError(f"waited {console.human_time(waited)} for {whom}, in vain", self.hint)
        if waited > SPEAK and not self.said:
            self.said = True
            console.say(f"waiting for {whom}")
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- one machine


def local_store(folder: Path, world: int) -> Any:
    """The store of processes on this machine: a file in a private folder. Nothing listens."""
    return dist.FileStore(str(folder / "store"), world)


def use_loopback() -> None:
    """Process groups made from here on listen on the loopback interface alone."""
    name = next((n for _, n in socket.if_nameindex() if n.startswith("lo")), None)
    if name is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name


# -------------------------------------------------------------------------------------------------------- a launcher

_stores: dict[int, Any] = {}


def launched_store() -> Any:
    """The store of the launcher's job; connected to, or opened by process 0, the first time. MachineError after a while."""
    if os.getpid() not in _stores:
        _stores[os.getpid()] = _connect(launched())
    return dist.PrefixStore("sslcli", _stores[os.getpid()])


def hosts_store() -> bool:
    """Whether the store ends with this process: torchrun's agent has one, other launchers leave it to process 0."""
    return os.environ.get("RANK") == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _connect(here: Place) -> Any:
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdigit() or not 0 <= int(port) < 1 << 16:
        raise RequestError(
            f"RANK={here.rank} and WORLD_SIZE={here.world} are set, but MASTER_ADDR={host} and MASTER_PORT={port} "
            "are no address",
            HINT,
        )
    patience = Patience(ARRIVAL, HINT)
    while True:
        try:
            if not hosts_store():  # torch's own attempts are not ended by signals, and each prints a line
                socket.create_connection((host, int(port)), timeout=2).close()
            store = dist.TCPStore(
                host,
                int(port),
                here.world,
                is_master=hosts_store(),
                timeout=datetime.timedelta(seconds=2),
                wait_for_workers=False,
                multi_tenant=True,
            )
            store.set_timeout(SILENCE)
            return store
        except (OSError, dist.DistError, RuntimeError, ValueError) as e:
            if hosts_store():
                raise MachineError(f"cannot listen at {host}:{port}: {str(e).splitlines()[0][:200]}", HINT) from None
            patience.wait(f"process 0 of {here.world} at {host}:{port} (this one has RANK={here.rank})")


def assemble() -> None:
    """Process 0 of a launcher waits until all others are there. MachineError where they do not come."""
    here, store = launched(), launched_store()
    patience, missing = Patience(ARRIVAL, HINT), set(range(1, here.world))
    at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    while missing := {r for r in missing if not store.check([f"here/{r}"])}:
        others = "1 other process" if len(missing) == 1 else f"{len(missing)} other processes"
        patience.wait(f"{others} of WORLD_SIZE={here.world} at {at}")


# ------------------------------------------------------------------------------------------------------------- group


def meet(store: Any, where: Place, device: torch.device, turn: int) -> None:
    """The process group of one job."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"group/{turn}", store),
        rank=where.rank,
        world_size=where.world,
        timeout=SILENCE,
        device_id=device if device.type == "cuda" else None,
    )
