"""Device, precision, threads and data workers, from `device.*` and this machine."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sslcli import console
from sslcli.errors import MachineError
from sslcli.nn import cpu_bf16
from sslcli.rng import derive
from sslcli.runtime import folders
from sslcli.runtime.rendezvous import ProcessInfo
from sslcli.runtime.resources import usable_cores
from sslcli.runtime.threads import set_initial_threads


@dataclass
class Runtime:
    """`device.*` resolved on this machine."""

    device: torch.device
    precision: str  # fp32 | bf16
    channels_last: bool
    compile: bool | None  # None: to be decided from the measured time of a step (device.compile=auto)
    workers: int
    threads: int
    training_precision: str = "fp32"  # of networks that an evaluation trains
    native: bool = False  # image views by compiled code; set by `views.images.compiled.configure`
    process: ProcessInfo = field(default_factory=ProcessInfo)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device.type, self.precision)

    def training_autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device.type, self.training_precision)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in channels-last memory format if `channels_last`."""
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.channels_last else module

    def seed_step(self, seed: int, step: int, rank: int = 0) -> None:
        """Seed torch's generators (dropout, drop-path) from (seed, step, rank), so that a checkpoint needs no generator state.

        Only the generators of this device are seeded: `torch.manual_seed` costs 50 times more, each step."""
        value = derive(seed, step, rank, "step")
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(value)

    def describe(self) -> str:
        """`cuda:0 (NVIDIA H200), bf16, channels_last`."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{self.threads} threads"
        extras = [
            self.precision,
            *(["channels_last"] if self.channels_last else []),
            *(["compiled"] if self.compile else []),
            *(["native views"] if self.native else []),
        ]
        count = f"{self.process.world_size} x " if self.process.world_size > 1 else ""
        return f"{count}{self.device} ({name}), {', '.join(extras)}"

    def thread_candidates(self, requested: int | None) -> list[int]:
        """Thread counts to compare, the current one first. `requested`: `device.threads`; a count set by the user is kept."""
        free = requested is None and "OMP_NUM_THREADS" not in os.environ
        compared = free and self.device.type == "cpu" and self.process.world_size == 1 and self.threads > 1
        return [self.threads, 1] if compared else [self.threads]

    def set_threads(self, count: int) -> None:
        """Set the number of torch threads of this process."""
        torch.set_num_threads(count)
        self.threads = count

    def peak_memory_mb(self) -> float:
        """Peak memory so far in MiB: allocated on a GPU, else resident memory of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def kind_of(cfg: dict[str, Any]) -> str:
    """The device type: cpu, cuda or mps; `auto` is cuda where available, else cpu."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return auto if cfg["type"] == "auto" else cfg["type"]


def auto_precision(kind: str, training: bool = False) -> str:
    """The precision of a device type where none is given.

    On a processor with instructions for bf16, training is faster in it (docs/results/precision.md), on others 4 to 24 times
    slower; features are computed in fp32, so that they do not depend on the processor."""
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if kind == "cpu" and training and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Whether oneDNN multiplies bf16 matrices by instructions of this processor, AMX or AVX512-BF16. Its variable
    ONEDNN_MAX_CPU_ISA=AVX512_CORE switches that off."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    amx = limit in ("ALL", "DEFAULT") or "AMX" in limit
    avx512 = amx or limit.startswith(("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10"))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch have none
    return any(capabilities.get(name) and allowed for name, allowed in (("amx_bf16", amx), ("avx512_bf16", avx512)))


def can_compile(kind: str) -> bool:
    """Whether torch.compile may pay on a device type: on a GPU with Triton. On a processor it gained nothing."""
    return kind == "cuda" and importlib.util.find_spec("triton") is not None


def autocast(kind: str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context of a forward pass on a device type."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return cpu_bf16.Autocast() if kind == "cpu" else torch.autocast(kind, dtype=torch.bfloat16)


def autocast_dtype(context: Callable[[], contextlib.AbstractContextManager[Any]], kind: str) -> torch.dtype | None:
    """The type to which a context casts on a device type; None for no autocast."""
    with context():
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def start(
    cfg: dict[str, Any], *, channels_last: bool = True, process: ProcessInfo | None = None, training: bool = False
) -> Runtime:
    """Apply `device.*` to this process. `channels_last`: whether samples have such a memory format at all. `training`: whether
    networks are trained, not only evaluated. MachineError where this machine has no such device."""
    kind, process = kind_of(cfg), process or ProcessInfo()
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError("device=cuda, but torch sees no CUDA device", "use device=cpu, or see `sslcli doctor`")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MachineError("device=mps, but torch sees no Metal device", "use device=cpu, or see `sslcli doctor`")
    device = torch.device(kind, process.local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    set_initial_threads(cfg["threads"], process.local_world_size)
    given = None if cfg["precision"] == "auto" else cfg["precision"]
    if kind == "cpu" and given == "bf16" and platform.machine() in ("x86_64", "AMD64") and not multiplies_bf16():
        console.warn(
            "device.precision=bf16: this processor has no instructions for bf16, and is 4 to 24 times slower in it than in fp32",
            "device.precision=auto trains in the faster one",
        )
    precision, of_training = (given or auto_precision(kind, trains) for trains in (training, True))
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    channels_last = channels_last and (
        kind in ("cuda", "cpu") if cfg["channels_last"] == "auto" else bool(cfg["channels_last"])
    )
    workers = cfg["workers"]
    if workers == "auto":
        workers = min(8, max(1, usable_cores() // process.local_world_size)) if usable_cores() > 1 else 0
    threads = torch.get_num_threads()
    compiled = (None if training and can_compile(kind) else False) if cfg["compile"] == "auto" else bool(cfg["compile"])
    if (
        compiled is not False and "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    ):  # torch's default in /tmp may belong to another user
        folder = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folders.new_private_folder())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Runtime(
        device,
        precision,
        channels_last,
        compiled,
        int(workers),
        threads,
        training_precision=of_training,
        process=process,
    )
