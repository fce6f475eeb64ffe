"""Streamed data: worker processes decode samples and crop them to what each view needs, in advance of the training step.

What a worker computes is a pure function of the ids of a batch: any worker may make any batch, and 0 workers give the same.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from sslcli import console
from sslcli.data.dataset import Source
from sslcli.data.files.memory_map import require_unchanged
from sslcli.data.loading.bad_samples import read_or_replace
from sslcli.errors import BadSample, MachineError, SslError
from sslcli.rng import Draw
from sslcli.runtime import folders
from sslcli.runtime.subprocesses import protect_imports

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch.utils.data import Dataset as TorchDataset

PREFETCH_FACTOR = 2  # batches that each worker prepares in advance
TIMEOUT_SECONDS = 600  # without a batch from any worker, after which the run fails
POLL_SECONDS = 5  # after which torch checks whether its workers are alive
SHM_HINT = "small /dev/shm (docker run --shm-size=2g): device.workers=0 needs neither"


class ViewMaker(Protocol):
    """The part of `sslcli.views.Views` that a loader uses."""

    kinds: list[str]

    def __call__(self, raw: Any, draw: Draw) -> list[Tensor]: ...
    def frames(self, images: list[Image], draw: Draw) -> list[Tensor]: ...
    def finish(self, frames: list[Tensor], draw: Draw) -> list[Tensor]: ...


DecodedBatch = tuple[
    int, Tensor, list[Tensor], dict[int, str]
]  # epoch, ids used, frames, id -> reason of unreadable ones


class DecodeTask:
    """The work of a worker: (epoch, ids) -> cropped uint8 frames. A pure function."""

    def __init__(self, source: Source, views: ViewMaker, seed: int, replace: bool):
        self.source, self.views, self.seed, self.replace = source, views, seed, replace
        self.bad: dict[int, str] = {}

    def __getitem__(self, spec: tuple[int, Tensor]) -> DecodedBatch | SslError:
        epoch, ids = spec
        try:
            require_unchanged()
            seed = self.seed if self.replace else None
            images, used, bad = read_or_replace(ids.tolist(), self._read, len(self.source), seed)
            used_ids = torch.tensor(used, dtype=torch.int64)
            frames = self.views.frames(images, Draw(self.seed, epoch, used_ids)) if images else []
            return epoch, used_ids, frames, bad
        except SslError as error:
            return error  # raised again in the main process

    def _read(self, i: int) -> Any:
        if i in self.bad:
            return self.bad[i]
        try:
            return self.source.read(i)
        except BadSample as error:
            self.bad[i] = error.message
            return error.message


def decode_batches(
    task: DecodeTask, specs: Iterable[tuple[int, Tensor]], workers: int, device: torch.device
) -> Generator[DecodedBatch, None, None]:
    """Run the task for each spec, in order: in this process, or in `workers` others that work in advance.

    Raises MachineError where a worker dies, shared memory is too small, or no batch arrives for `TIMEOUT_SECONDS`.
    """
    if workers and not folders.available():  # the sockets of the worker processes need a temporary folder
        console.say(f"{folders.MISSING}: data is read without worker processes")
        workers = 0
    if workers == 0:
        for spec in specs:
            yield _raise_error(task[spec])
        return
    batches = _start_workers(task, specs, workers, device)
    try:
        waiting_since = time.monotonic()
        while True:
            try:
                item = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                _raise_worker_error(error, time.monotonic() - waiting_since)
                continue  # torch found its workers alive, and the batch is still to come
            yield _to_tensors(_raise_error(item))
            waiting_since = time.monotonic()
    finally:
        stop = getattr(batches, "_shutdown_workers", None)  # now, rather than when the garbage collector runs
        if stop is not None:
            stop()


def _start_workers(
    task: DecodeTask, specs: Iterable[tuple[int, Tensor]], workers: int, device: torch.device
) -> Iterator[Any]:
    import multiprocessing as mp

    from torch.utils.data import DataLoader

    # No fork: this process has threads (those of torch and of the live display) and perhaps CUDA, which a fork would break.
    protect_imports()
    context = mp.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":  # torch is imported once, by the fork server, and not in each worker
        context.set_forkserver_preload(["sslcli.data.loading.workers", "sslcli.views"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user sets the number of workers
        loader: DataLoader[Any] = DataLoader(
            cast("TorchDataset[Any]", _SharedMemoryTask(task)),  # torch calls `__getitem__` alone
            batch_size=None,
            sampler=_SpecSampler(specs),
            num_workers=workers,
            collate_fn=_identity,
            prefetch_factor=PREFETCH_FACTOR,
            timeout=POLL_SECONDS,
            multiprocessing_context=context,
            worker_init_fn=functools.partial(_prepare_worker, os.getpid()),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # its base seed would otherwise be drawn from torch's global generator
        )
        try:
            return iter(loader)
        except RuntimeError as error:  # the tables of file names are passed through shared memory
            if "shared memory" not in str(error):
                raise
            raise MachineError(f"no room in shared memory: {str(error).splitlines()[0]}", f"a {SHM_HINT}") from error


def _raise_worker_error(error: RuntimeError, waited: float) -> None:
    """Raises MachineError for what ends a run. Returns after a timeout of torch that is shorter than `TIMEOUT_SECONDS`."""
    if "timed out after" in str(error):
        if waited < TIMEOUT_SECONDS:
            return
        raise MachineError(
            f"the data workers made no batch for {TIMEOUT_SECONDS // 60} minutes",
            "check the disk or the network that holds the data; device.workers=0 reads without worker processes",
        ) from error
    if "exited unexpectedly" not in str(error) and "is killed by signal" not in str(error):
        raise error
    raise MachineError(
        f"a data worker died: {str(error).splitlines()[0]}",
        f"the most frequent causes are too little memory and a {SHM_HINT}",
    ) from error


class _SharedMemoryTask:
    """A task in a worker, whose frames are passed through shared memory, or as arrays through a pipe where that is full.

    If torch moved the frames to shared memory, a failure would occur in a background thread that nothing monitors, and the
    main process would wait for the batch forever."""

    def __init__(self, task: DecodeTask):
        self.task = task

    def __getitem__(self, spec: tuple[int, Tensor]) -> tuple[int, Any, list[Any], dict[int, str]] | SslError:
        batch = self.task[spec]
        if isinstance(batch, SslError):
            return batch
        epoch, ids, frames, bad = batch
        try:
            return epoch, ids.numpy(), [frame.share_memory_() for frame in frames], bad
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return epoch, ids.numpy(), [frame.numpy() for frame in frames], bad


def _to_tensors(item: Any) -> DecodedBatch:
    epoch, ids, frames, bad = item
    if any(not isinstance(frame, Tensor) for frame in frames):
        _warn_full()
    return epoch, torch.from_numpy(ids), [torch.as_tensor(frame) for frame in frames], bad


@functools.cache
def _warn_full() -> None:
    console.warn("shared memory (/dev/shm) is full: batches are passed through pipes, which is slower", f"a {SHM_HINT}")


def _raise_error(item: DecodedBatch | SslError) -> DecodedBatch:
    if isinstance(item, SslError):
        raise item
    return item


class _SpecSampler:
    """An iterable as the sampler of a DataLoader."""

    def __init__(self, specs: Iterable[tuple[int, Tensor]]):
        self.specs = specs

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        return iter(self.specs)


def _identity(item: object) -> Any:
    return item


def _prepare_worker(owner: int, _: int) -> None:
    """One thread. Signals reach the whole process group, but only the main process handles them."""
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_owner, args=(owner,), daemon=True).start()
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        # Continue for half a minute, so that the main process can finish its step and its checkpoint.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def _exit_with_owner(owner: int) -> None:
    """Exit when the main process was killed. torch's own watchdog checks the parent, which is the fork server, and the fork
    server waits for its children: without this thread all of them would stay forever."""
    while os.name == "posix":  # elsewhere the parent is the main process
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)
