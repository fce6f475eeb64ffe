"""The machine: which device, which precision, how many threads and workers, and the signals that ask us to stop."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn

from sslcli import console
from sslcli.errors import MachineError
from sslcli.rng import derive
from sslcli.runtime import folders
from sslcli.runtime.cores import usable_cores
from sslcli.runtime.processes import Place, under_torchrun

SAVE_BEFORE_END = 60  # seconds before a Slurm job's time is up


@dataclass
class Runtime:
    """What `device.*` came to on this machine."""

    device: torch.device
    precision: str  # fp32 | bf16
    channels_last: bool
    compile: bool
    workers: int
    threads: int
    native: bool = False  # image views on the processor by compiled code
    team: Place = field(default_factory=Place)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def place(self, module: nn.Module) -> nn.Module:
        """On the device, in the memory format that suits it."""
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.channels_last else module

    def seed_step(self, seed: int, step: int, rank: int = 0) -> None:
        """torch's own generators (dropout, drop-path) are a function of the step too: nothing to save, nothing to restore.

        Only the generators of our device are touched: `torch.manual_seed` costs 50 times more, each step."""
        value = derive(seed, step, rank, "step")
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(value)

    def words(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{self.threads} threads"
        extras = [
            self.precision,
            *(["channels_last"] if self.channels_last else []),
            *(["compiled"] if self.compile else []),
            *(["native views"] if self.native else []),
        ]
        count = f"{self.team.world} x " if self.team.world > 1 else ""
        return f"{count}{self.device} ({name}), {', '.join(extras)}"

    def peak_memory_mb(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def kind_of(cfg: dict[str, Any]) -> str:
    """cpu, cuda or mps; `auto` is cuda where there is one."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return auto if cfg["type"] == "auto" else cfg["type"]


def start(cfg: dict[str, Any], *, images: bool = True, place: Place | None = None) -> Runtime:
    """Reads `device.*`. MachineError when the machine cannot."""
    kind, place = kind_of(cfg), place or Place()
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError("device=cuda, but torch sees no CUDA device", "use device=cpu, or see `sslcli doctor`")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MachineError("device=mps, but torch sees no Metal device", "use device=cpu, or see `sslcli doctor`")
    device = torch.device(kind, place.local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if cfg["threads"] is not None:
        torch.set_num_threads(cfg["threads"])
    elif place.local_world > 1:
        torch.set_num_threads(max(1, usable_cores() // place.local_world))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # torch knows of no CPU quota
    precision = cfg["precision"]
    if precision == "auto":  # bf16 without units for it halves the speed (measured on AVX-512 without them)
        precision = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    channels_last = cfg["channels_last"]
    if channels_last == "auto":
        channels_last = images and kind in ("cuda", "cpu")
    workers = cfg["workers"]
    if workers == "auto":
        workers = min(8, max(1, usable_cores() // place.local_world)) if usable_cores() > 1 else 0
    threads = torch.get_num_threads()
    compiled = bool(cfg["compile"])
    if compiled and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # torch's own choice in /tmp may be another user's
        folder = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folders.new_private_folder())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    compiled_views = images and kind == "cpu" and _native_views(cfg.get("native", "auto"))
    return Runtime(device, precision, bool(channels_last), compiled, int(workers), threads, compiled_views, place)


def _native_views(wanted: bool | str) -> bool:
    from sslcli.views import native

    native.choose(wanted)
    if wanted == "auto" and (reason := native.missing()):
        console.say(f"views of images are made by tensor code, several times slower on a CPU: {reason}")
    return native.usable()


def slurm_end() -> float:
    """When the time of this Slurm job is up; infinity outside one. An end that has passed is left over from an earlier job."""
    word = os.environ.get("SLURM_JOB_END_TIME", "")
    end = int(word) if word.isascii() and word.isdigit() else math.inf
    return end if end > time.time() else math.inf


class StopSignal:
    """Set by SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU and SIGHUP (unless `nohup` ignores it); the loop looks at it between steps.

    A handler only sets the flag: saving inside one hangs. A second SIGINT leaves at once, the last checkpoint intact."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.when = 0.0
        self.deadline = slurm_end() - SAVE_BEFORE_END

    @property
    def number(self) -> int:
        """Of the signal; 0 while there is none. The end of a Slurm job's time counts as SIGTERM, a minute before."""
        if self.received is None and time.time() > self.deadline:
            return int(signal.SIGTERM)
        return int(self.received or 0)

    def __bool__(self) -> bool:
        return self.number != 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        twice = (
            time.monotonic() - self.when > 1 or not under_torchrun()
        )  # torchrun passes on what a terminal sent to all
        if self.received is signal.SIGINT and number == signal.SIGINT and twice:
            with contextlib.suppress(OSError):  # nobody may be reading
                os.write(2, b"\nleaving now; the last checkpoint is intact\n")
            os._exit(130)
        self.received, self.when = signal.Signals(number), time.monotonic()


def nohup(name: str) -> bool:
    """Whether whoever started this process asked it to outlive its terminal: `nohup` ignores SIGHUP before it starts a command."""
    return name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catches the signals for the time of the block; the old handlers come back after it."""
    stop = StopSignal()
    wanted = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP"]
    numbers = [getattr(signal, name) for name in wanted if hasattr(signal, name) and not nohup(name)]
    try:
        old = {n: signal.signal(n, stop.handle) for n in numbers}
    except ValueError:  # not the main thread (a joblib thread): nobody can signal us here
        yield stop
        return
    try:
        yield stop
    finally:
        for n, handler in old.items():
            signal.signal(n, handler)
