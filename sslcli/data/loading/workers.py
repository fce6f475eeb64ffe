"""Streamed data: worker processes decode samples and cut them to what each view needs, ahead of the step.

What a worker does is a pure function of a batch's ids, so any worker may do any batch, and 0 workers see the same.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from sslcli import console
from sslcli.data.dataset import Source
from sslcli.data.files.memory_map import require_unchanged
from sslcli.data.images.decode import BadImage
from sslcli.data.loading.bad_samples import read_or_replace
from sslcli.errors import MachineError, SslError
from sslcli.rng import Draw
from sslcli.runtime import folders
from sslcli.runtime.subprocesses import protect_imports

if TYPE_CHECKING:
    from PIL.Image import Image

PREFETCH = 2  # batches ready for each worker
TIMEOUT_SECONDS = 600  # seconds without a batch of any worker: something is wrong
POLL_SECONDS = 5  # seconds after which torch looks whether its workers are alive
SMALL_SHM = "small /dev/shm (docker run --shm-size=2g): device.workers=0 needs neither"


class ViewMaker(Protocol):
    """What is asked of `sslcli.views.Views`."""

    kinds: list[str]

    def __call__(self, raw: Tensor, draw: Draw) -> list[Tensor]: ...
    def frames(self, images: list[Image], draw: Draw) -> list[Tensor]: ...
    def finish(self, frames: list[Tensor], draw: Draw) -> list[Tensor]: ...


DecodedBatch = tuple[int, Tensor, list[Tensor], dict[int, str]]  # epoch, ids used, frames, id -> reason of the bad


class DecodeTask:
    """What a worker does: ids in, cropped uint8 frames out; a pure function, so any worker may do any batch."""

    def __init__(self, source: Source, views: ViewMaker, seed: int, replace: bool):
        self.source, self.views, self.seed, self.replace = source, views, seed, replace
        self.bad: dict[int, str] = {}

    def __getitem__(self, spec: tuple[int, Tensor]) -> DecodedBatch | SslError:
        epoch, ids = spec
        try:
            require_unchanged()
            seed = self.seed if self.replace else None
            images, used, bad = read_or_replace(ids.tolist(), self._read, len(self.source), seed)
            kept = torch.tensor(used, dtype=torch.int64)
            frames = self.views.frames(images, Draw(self.seed, epoch, kept)) if images else []
            return epoch, kept, frames, bad
        except SslError as error:
            return error  # raised again where the user is

    def _read(self, i: int) -> Any:
        if i in self.bad:
            return self.bad[i]
        try:
            return self.source.read(i)
        except BadImage as error:
            self.bad[i] = error.message
            return error.message


def decode_batches(
    job: DecodeTask, specs: Iterable[tuple[int, Tensor]], workers: int, device: torch.device
) -> Generator[DecodedBatch, None, None]:
    """The job for each spec, in order; by this process, or by `workers` others that run ahead."""
    if workers and not folders.available():  # where the sockets of other processes would lie
        console.say(f"{folders.MISSING}: no worker processes read data")
        workers = 0
    if workers == 0:
        for spec in specs:
            yield _raise_error(job[spec])
        return
    import multiprocessing as mp
    import sys

    from torch.utils.data import DataLoader

    # Not fork: this process has threads (torch's, the live display's) and perhaps CUDA, which a fork would break.
    protect_imports()
    context = mp.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(
            ["sslcli.data.loading.workers", "sslcli.views"]
        )  # torch is imported once, not in each worker
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # the user says how many
        loader: DataLoader[Any] = DataLoader(
            _SharedMemoryTask(job),  # type: ignore[arg-type]
            batch_size=None,
            sampler=_SpecSampler(specs),
            num_workers=workers,
            collate_fn=_identity,
            prefetch_factor=PREFETCH,
            timeout=POLL_SECONDS,
            multiprocessing_context=context,
            worker_init_fn=functools.partial(_prepare_worker, os.getpid()),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # its base seed would otherwise be drawn from torch's global numbers
        )
        try:
            made = iter(loader)
        except RuntimeError as error:  # the names of many files are handed over there
            if "shared memory" not in str(error):
                raise
            raise MachineError(f"no room in shared memory: {str(error).splitlines()[0]}", f"a {SMALL_SHM}") from error

    try:
        waiting = time.monotonic()
        while True:
            try:
                item = next(made)
            except StopIteration:
                return
            except RuntimeError as error:
                if "timed out after" in str(error) and time.monotonic() - waiting < TIMEOUT_SECONDS:
                    continue  # torch has looked whether the workers live, and the batch is still to come
                if "timed out after" in str(error):
                    raise MachineError(
                        f"the processes that read data made no batch for {TIMEOUT_SECONDS // 60} minutes",
                        "is the disk or the network that holds the data there? device.workers=0 reads without them",
                    ) from error
                if "exited unexpectedly" not in str(error) and "is killed by signal" not in str(error):
                    raise
                raise MachineError(
                    f"a process that reads data died: {str(error).splitlines()[0]}",
                    f"most often memory or a {SMALL_SHM}",
                ) from error
            yield _to_tensors(_raise_error(item))
            waiting = time.monotonic()
    finally:
        stop = getattr(made, "_shutdown_workers", None)  # now, and not when the collector gets to it
        if stop is not None:
            stop()


class _SharedMemoryTask:
    """A job in a worker: the frames it makes are put into shared memory, or where that is full go through a pipe, as arrays.

    Left to torch, they would be moved there by a thread whose errors nobody hears of: the batch would be waited for without end."""

    def __init__(self, job: DecodeTask):
        self.job = job

    def __getitem__(self, spec: tuple[int, Tensor]) -> tuple[int, Any, list[Any], dict[int, str]] | SslError:
        made = self.job[spec]
        if isinstance(made, SslError):
            return made
        epoch, ids, frames, bad = made
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
    console.warn("shared memory (/dev/shm) is full: batches come through pipes, which is slower", f"a {SMALL_SHM}")


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


def _identity(item: Any) -> Any:
    return item


def _prepare_worker(owner: int, _: int) -> None:
    """One thread; signals reach the whole process group, but it is the main process that answers them."""
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_owner, args=(owner,), daemon=True).start()
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        # Told to end: go on for half a minute, so that the step in hand and its checkpoint can be finished.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def _exit_with_owner(owner: int) -> None:
    """The main process may be killed. torch's own watch looks at the parent, which is the fork server, and that one waits for
    its children: without this they would all stay for ever."""
    while os.name == "posix":  # elsewhere the parent is the main process
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)
