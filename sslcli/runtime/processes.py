"""Multi-process runs. Rank 0 is the user's own process: it reads the request, writes the run folder and prints. The other
ranks (workers) receive a payload, build the same objects and process their share of every batch.

Two ways to start the workers:
- `train.devices=N`: rank 0 starts N - 1 processes on this machine for one command, and hands each the payload.
- `torchrun ... -m sslcli ...`, on one machine or several: all processes exist from the start, and RANK says which one this
  is. The payload, without the folders from which modules may be imported, goes through their store (`runtime/rendezvous.py`).

Errors of workers also go through the store. Once the process group exists, everything else goes through `sslcli.nn.dist`.
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

from sslcli.errors import Interrupted, MachineError, SslError, Stopped, first_line
from sslcli.runtime.folders import new_private_folder, remove_folder
from sslcli.runtime.rendezvous import (
    PollingWait,
    ProcessInfo,
    hosts_store,
    init_process_group,
    is_peer_error,
    launcher_info,
    launcher_store,
    local_store,
    process_info,
    read_error,
    report_error,
    under_launcher,
    use_loopback,
    wait_for_workers,
)
from sslcli.runtime.subprocesses import protect_imports

__all__ = ["ProcessInfo", "join_group", "launch", "launcher_info", "process_info", "run_worker", "shutdown_launched"]
__all__ += ["under_launcher", "wait_for_workers"]

GRACE = 10.0  # seconds in which the other processes may detect a failure themselves

FOLDERS = "folders"  # key of a payload: from where modules may be imported

Payload = dict[str, Any]  # JSON


# ------------------------------------------------------------------------------------------------------------ rank 0


@contextlib.contextmanager
def launch(
    info: ProcessInfo,
    device: torch.device,
    payload: Payload,
    work: Callable[[Payload], None],
    next_step: str = "run the same command again",
) -> Iterator[None]:
    """Run the block as rank 0 of a process group whose other ranks call `work(payload)`. A no-op with one process.

    `work` is a function at the top level of a module, because its name is sent to other processes. An error of a worker
    is raised here with its own type. `next_step`: what to do after a worker was lost."""
    if info.world_size == 1:
        yield
        return
    group = _WorkerGroup(info, next_step)
    try:
        group.start(work, payload)
        group.wait_until_ready()
        init_process_group(group.store, info, device, group.turn)
        try:
            yield
        except (SslError, KeyboardInterrupt):
            raise
        except Exception as e:  # a failed collective does not say why
            problem = group.find_cause(e)
            if problem is None:
                raise
            raise problem from e
    finally:
        group.shutdown()


class _WorkerGroup:
    """The other processes, as rank 0 sees them."""

    turns = 0  # groups started so far in this process

    def __init__(self, info: ProcessInfo, next_step: str):
        self.info, self.next_step = info, next_step
        _WorkerGroup.turns += 1
        self.turn = _WorkerGroup.turns
        self.processes: list[Any] = []
        self.over = threading.Event()
        self.folder: Path | None = None
        if under_launcher():
            self.store = launcher_store()
        else:
            self.folder = new_private_folder()
            self.store = local_store(self.folder, info.world_size)

    def start(self, work: Callable[[Payload], None], payload: Payload) -> None:
        """Send the payload to the workers; start them first unless a launcher did."""
        if self.folder is None:
            self.store.set(f"job/{self.turn}", json.dumps({k: v for k, v in payload.items() if k != FOLDERS}))
            return
        import multiprocessing as mp

        protect_imports()
        use_loopback()
        context = mp.get_context("spawn")  # not fork: this process has threads, and may have a CUDA context
        for rank in range(1, self.info.world_size):
            args = rank, self.info.world_size, str(self.folder), self.turn, work, json.dumps(payload)
            process = context.Process(target=_spawned, args=args)
            process.start()
            self.processes.append(process)
        threading.Thread(target=self._watch, daemon=True).start()

    def wait_until_ready(self) -> None:
        """Block until every worker has built its objects. Raises the error of a worker that failed."""
        wait, missing = PollingWait(), set(range(1, self.info.world_size))
        while missing := {r for r in missing if not self.store.check([f"ready/{self.turn}/{r}"])}:
            if problem := self._reported() or self._exited():
                raise problem
            wait.sleep(f"process {min(missing)} of {self.info.world_size} to be ready (it reads the data too)")

    def _reported(self) -> SslError | None:
        """The error that a worker wrote to the store."""
        return read_error(self.store, self.turn, self.info.world_size)

    def _exited(self) -> SslError | None:
        """The error of a worker that exited without reporting one."""
        for rank, process in enumerate(self.processes, 1):
            code = process.exitcode
            if code not in (None, 0):
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                message = f"process {rank} of {self.info.world_size} (pid {process.pid}) ended: {how}"
                return MachineError(message, self.next_step)
        return None

    def find_cause(self, error: Exception) -> SslError | None:
        """Why a collective failed: the error that a worker reported, or that it exited. None when no worker failed."""
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            with contextlib.suppress(Exception):  # the store may be gone too
                if problem := self._reported() or self._exited():
                    return problem
            if not is_peer_error(error):
                return None
            time.sleep(0.1)
        return MachineError(f"lost contact with another process ({first_line(error)[:200]})", self.next_step)

    def _watch(self) -> None:
        """Exit when a worker has exited and no error surfaces: an NCCL collective may hang where gloo's fails."""
        while not self.over.wait(0.5):
            problem = self._exited()
            if problem is not None and not self.over.wait(3 * GRACE):
                from sslcli import console

                console.error(problem)
                os._exit(problem.code)

    def shutdown(self) -> None:
        """Destroy the process group and end the workers that rank 0 started."""
        self.over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self.processes:
            process.join(GRACE)
            if process.exitcode is None:  # in a collective without peers, or reading its data
                process.kill()
                process.join(GRACE)
        if self.folder is not None:
            remove_folder(self.folder)


def shutdown_launched(code: int) -> None:
    """End the workers of a launcher. A store hosted by this process is kept until all have left, at most `GRACE` seconds."""
    store, others = launcher_store(), range(1, launcher_info().world_size)
    store.set(f"job/{_WorkerGroup.turns + 1}", json.dumps({"end": code}))
    until = time.monotonic() + GRACE
    while hosts_store() and time.monotonic() < until and not store.check([f"gone/{r}" for r in others]):
        time.sleep(0.05)


# ----------------------------------------------------------------------------------------------------------- workers


def run_worker(work: Callable[[Payload], None]) -> int:
    """Main loop of a launcher's process with RANK > 0: one payload after the other, until rank 0 ends. The exit code."""
    from sslcli import console

    info, store, turn = launcher_info(), launcher_store(), 0
    os.environ[console.QUIET] = "1"  # only rank 0 prints
    store.set(f"here/{info.rank}", "1")
    try:
        while True:
            turn += 1
            payload = _next_payload(store, turn)
            if "end" in payload:
                return 0
            code = _execute(payload, store, info, turn, work)
            if code:
                return code
    finally:
        with contextlib.suppress(Exception):  # the store may be gone
            store.set(f"gone/{info.rank}", "1")


def _next_payload(store: dist.Store, turn: int) -> Payload:
    """Wait for a payload, as long as rank 0 reads data. Import folders are taken from this process's own command line only,
    never from the store."""
    key = f"job/{turn}"
    try:
        while not store.check([key]):
            time.sleep(0.05)
        payload: Payload = json.loads(store.get(key))
    except (dist.DistError, RuntimeError) as e:
        raise MachineError(f"lost contact with process 0 ({first_line(e)[:200]})", "start all processes") from None
    payload.pop(FOLDERS, None)
    return payload


_current: tuple[dist.Store, ProcessInfo, int] | None = None  # of a worker that executes a payload: store, process, turn


def join_group(device: torch.device) -> None:
    """Report a worker as ready and join the process group. A no-op in rank 0."""
    if _current is not None and not dist.is_initialized():
        store, info, turn = _current
        store.set(f"ready/{turn}/{info.rank}", "1")
        init_process_group(store, info, device, turn)


def _execute(payload: Payload, store: dist.Store, info: ProcessInfo, turn: int, work: Callable[[Payload], None]) -> int:
    """`work(payload)` with its errors reported to rank 0. The exit code."""
    global _current
    _current = store, info, turn
    try:
        work(payload)
    except (Stopped, Interrupted):
        return 0  # rank 0 reports it
    except SslError as e:
        report_error(store, info, turn, e)
        return e.code
    except torch.OutOfMemoryError as e:
        report_error(store, info, turn, MachineError(f"out of memory: {e}", "train.accumulate=2"))
        return MachineError.code
    except Exception as e:
        if not is_peer_error(e):
            report_error(store, info, turn, MachineError("".join(traceback.format_exception(e))))
        return 1
    finally:
        _current = None
        if dist.is_initialized():
            with contextlib.suppress(Exception):
                dist.destroy_process_group()
    return 0


def _spawned(rank: int, world_size: int, folder: str, turn: int, work: Callable[[Payload], None], payload: str) -> None:
    """Main function of a process that rank 0 started. It ends when rank 0 ends, in whatever way."""
    from sslcli import console

    size = str(world_size)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": size, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": size}
    os.environ[console.QUIET] = "1"
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP"):
        if hasattr(signal, name):  # a terminal sends Ctrl-C to every process: rank 0 decides, at the next step
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(Path(folder),), daemon=True).start()
    code = _execute(json.loads(payload), local_store(Path(folder), world_size), launcher_info(), turn, work)
    sys.stdout.flush()
    sys.stderr.flush()
    if code:  # perhaps because rank 0 was killed: its collectives fail before the thread above has noticed
        _exit_with_parent(Path(folder), timeout=1.0)
    os._exit(code)  # skip clean-up that could wait for a peer


def _exit_with_parent(folder: Path, timeout: float | None = None) -> None:
    """Wait for the end of rank 0, which may have been killed: then remove its folder and exit."""
    import multiprocessing as mp
    from multiprocessing.connection import wait

    parent = mp.parent_process()
    assert parent is not None
    if wait([parent.sentinel], timeout):
        remove_folder(folder)
        os._exit(1)
