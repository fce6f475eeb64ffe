"""Many processes, one run. Rank 0 is the user's own process: it reads the request, writes the folder and prints. The
others follow: they are told a job, build the same objects, and take their share of every batch.

How a team comes about:
- `train.devices=N`: rank 0 starts N - 1 processes on this machine for the time of one job, and hands each the job.
- `torchrun ... -m sslcli ...`, on one machine or several: all are there from the start, and RANK says which one this is. The
  job, without any folder to import from, lies in the store that they share (`runtime/rendezvous.py`).

Through the store also goes what went wrong with whom. Then a process group is made and the rest goes through `sslcli.nn.dist`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sslcli.errors import Interrupted, MachineError, SslError, Stopped
from sslcli.runtime.folders import new_private_folder, remove_folder
from sslcli.runtime.rendezvous import (
    Patience,
    Place,
    assemble,
    hosts_store,
    launched,
    launched_store,
    local_store,
    meet,
    place,
    under_torchrun,
    use_loopback,
)
from sslcli.runtime.subprocesses import protect_imports

__all__ = ["Place", "assemble", "dismiss_launched", "follow", "launched", "lead", "place", "ready", "under_torchrun"]

GRACE = 10.0  # seconds for the others to notice by themselves

FOLDERS = "folders"  # of a job: from where modules may be imported

Job = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------ rank 0


@contextlib.contextmanager
def lead(where: Place, device: torch.device, job: Job, work: Callable[[Job], None]) -> Iterator[None]:
    """The team for one job: tells it to the others, and holds the process group for the time of the block.

    `work` is what the others do with it (a function of a module, since it is named to another process).

    An error of another process comes out here, as what it was. With one process nothing happens.
    """
    if where.world == 1:
        yield
        return
    crew = _Crew(where)
    try:
        crew.start(work, job)
        crew.wait_until_ready()
        meet(crew.store, where, device, crew.turn)
        try:
            yield
        except (SslError, KeyboardInterrupt):
            raise
        except Exception as e:  # a collective that failed says nothing of why
            problem = crew.culprit(e)
            if problem is None:
                raise
            raise problem from e
    finally:
        crew.dismiss()


class _Crew:
    """The other processes, as rank 0 sees them."""

    turns = 0  # jobs led so far in this process

    def __init__(self, where: Place):
        self.where = where
        _Crew.turns += 1
        self.turn = _Crew.turns
        self.processes: list[Any] = []
        self.over = threading.Event()
        self.folder: Path | None = None
        if under_torchrun():
            self.store = launched_store()
        else:
            self.folder = new_private_folder()
            self.store = local_store(self.folder, where.world)

    def start(self, work: Callable[[Job], None], job: Job) -> None:
        """Tells the others the job: those that torchrun has started, or those that are started here."""
        if self.folder is None:
            self.store.set(f"job/{self.turn}", json.dumps({k: v for k, v in job.items() if k != FOLDERS}))
            return
        import multiprocessing as mp

        protect_imports()
        use_loopback()
        context = mp.get_context("spawn")  # not fork: this process has threads, and perhaps CUDA
        for rank in range(1, self.where.world):
            about = rank, self.where.world, str(self.folder), self.turn, work, json.dumps(job)
            process = context.Process(target=_spawned, args=about)
            process.start()
            self.processes.append(process)
        threading.Thread(target=self._watch, daemon=True).start()

    def wait_until_ready(self) -> None:
        patience, missing = Patience(), set(range(1, self.where.world))
        while missing := {r for r in missing if not self.store.check([f"ready/{self.turn}/{r}"])}:
            if problem := self._told() or self._dead():
                raise problem
            patience.wait(f"process {min(missing)} of {self.where.world} to be ready (it reads the data too)")

    def _told(self) -> SslError | None:
        """An error that another process left in the store."""
        key = f"error/{self.turn}"
        if not self.store.check([key]):
            return None
        told = json.loads(self.store.get(key))
        kind = {c.__name__: c for c in SslError.__subclasses__()}.get(told["kind"], MachineError)
        return kind(f"process {told['rank']} of {self.where.world} on {told['host']}: {told['message']}", told["hint"])

    def _dead(self) -> SslError | None:
        for rank, process in enumerate(self.processes, 1):
            if process.exitcode not in (None, 0):
                how = (
                    signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
                )
                return MachineError(
                    f"process {rank} of {self.where.world} (pid {process.pid}) ended: {how}",
                    "the last checkpoint is intact: sslcli resume goes on from it (out of memory? train.accumulate=2)",
                )
        return None

    def culprit(self, error: Exception) -> SslError | None:
        """Why a collective failed: what another process said, or that it is gone. None when nobody else had a problem."""
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            with contextlib.suppress(Exception):  # the store may be gone too
                if problem := self._told() or self._dead():
                    return problem
            if not _is_about_peers(error):
                return None
            time.sleep(0.1)
        return MachineError(
            f"another process of this job is gone ({str(error).splitlines()[0][:200]})", "sslcli resume"
        )

    def _watch(self) -> None:
        """A collective of NCCL may hang where gloo's fails: when a process is gone and nobody notices, this one leaves."""
        while not self.over.wait(0.5):
            problem = self._dead()
            if problem is not None and not self.over.wait(3 * GRACE):
                from sslcli import console

                console.error(problem)
                os._exit(problem.code)

    def dismiss(self) -> None:
        self.over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self.processes:
            process.join(GRACE)
            if process.exitcode is None:  # in a collective that nobody answers, or in its data
                process.kill()
                process.join(GRACE)
        if self.folder is not None:
            remove_folder(self.folder)


def dismiss_launched(code: int) -> None:
    """Rank 0 of a launcher has nothing more to do: the others may leave too. A store that ends with this process is kept until
    they have heard of it, or for some seconds."""
    store, others = launched_store(), range(1, launched().world)
    store.set(f"job/{_Crew.turns + 1}", json.dumps({"end": code}))
    until = time.monotonic() + GRACE
    while hosts_store() and time.monotonic() < until and not store.check([f"gone/{r}" for r in others]):
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- the others


def follow(work: Callable[[Job], None]) -> int:
    """A process that torchrun started with RANK > 0: one job after the other, until rank 0 has no more. The exit code."""
    from sslcli import console

    where, store, turn = launched(), launched_store(), 0
    os.environ[console.QUIET] = "1"  # rank 0 does the talking
    store.set(f"here/{where.rank}", "1")
    try:
        while True:
            turn += 1
            job = _next_job(store, turn)
            if "end" in job:
                return 0
            code = _do(job, store, where, turn, work)
            if code:
                return code
    finally:
        with contextlib.suppress(Exception):  # the store may be gone
            store.set(f"gone/{where.rank}", "1")


def _next_job(store: Any, turn: int) -> Job:
    """Waits as long as rank 0 reads data. Folders to import from are never taken from a store, but from the own command line."""
    key = f"job/{turn}"
    try:
        while not store.check([key]):
            time.sleep(0.05)
        told: Job = json.loads(store.get(key))
    except (dist.DistError, RuntimeError) as e:
        raise MachineError(f"process 0 of this job is gone ({str(e).splitlines()[0][:200]})", "sslcli resume") from None
    told.pop(FOLDERS, None)
    return told


_this_job: tuple[Any, Place, int] | None = None  # of a follower: where to say that it is ready


def ready(device: torch.device) -> None:
    """A follower has built its objects: says so, and waits for the group. Nothing happens in rank 0."""
    if _this_job is not None and not dist.is_initialized():
        store, where, turn = _this_job
        store.set(f"ready/{turn}/{where.rank}", "1")
        meet(store, where, device, turn)


def _do(job: Job, store: Any, where: Place, turn: int, work: Callable[[Job], None]) -> int:
    global _this_job
    _this_job = store, where, turn
    try:
        work(job)
    except (Stopped, Interrupted):
        return 0  # rank 0 says it
    except SslError as e:
        _confess(store, where, turn, type(e).__name__, e.message, e.hint)
        return e.code
    except torch.OutOfMemoryError as e:
        _confess(store, where, turn, "MachineError", f"out of memory: {e}", "train.accumulate=2")
        return MachineError.code
    except Exception as e:
        if not _is_about_peers(e):
            _confess(store, where, turn, "MachineError", "".join(traceback.format_exception(e)), None)
        return 1
    finally:
        _this_job = None
        if dist.is_initialized():
            with contextlib.suppress(Exception):
                dist.destroy_process_group()
    return 0


def _confess(store: Any, where: Place, turn: int, kind: str, message: str, hint: str | None) -> None:
    import socket

    told = {"rank": where.rank, "host": socket.gethostname(), "kind": kind, "message": message, "hint": hint}
    with contextlib.suppress(Exception):  # rank 0 may be gone
        store.set(f"error/{turn}", json.dumps(told))


def _is_about_peers(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "nccl", "connection", "broken pipe", "store", "peer", "timed out")
    )


def _spawned(rank: int, world: int, folder: str, turn: int, work: Callable[[Job], None], job: str) -> None:
    """The life of a process that rank 0 started. It ends when rank 0 does, whatever happens to that."""
    from sslcli import console

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    os.environ[console.QUIET] = "1"
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP"):
        if hasattr(signal, name):  # a terminal sends Ctrl-C to all of us: rank 0 decides, and tells at the next step
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    code = _do(json.loads(job), local_store(Path(folder), world), launched(), turn, work)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no clean-up that could wait for a peer


def _leave_with_parent(folder: str) -> None:
    """Rank 0 may be killed: its folder is removed for it."""
    import multiprocessing as mp
    from multiprocessing.connection import wait

    parent = mp.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    remove_folder(Path(folder))
    os._exit(1)
