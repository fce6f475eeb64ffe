"""Compiled image views on a CPU (native.c): bit-identical to the tensor code and several times faster.

The C file is compiled on first use, in a second or two, by the machine's C compiler (`$CC`, or cc, gcc, clang), and cached in the
user's cache folder per processor, compiler and source. A library, newly compiled or from the cache, is used only if its content has
the SHA-256 in its name and its views of a few samples have the bits of the tensor code. Without a compiler, or a folder to compile
in, the tensor code is used; `sslcli doctor` reports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sslcli import console
from sslcli.errors import MachineError
from sslcli.runtime import folders
from sslcli.runtime.folders import cache_folder, only_mine
from sslcli.runtime.resources import usable_cores

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
COLOR_CODES = ("brightness", "contrast", "saturation", "hue", "grayscale", "solarize", "intensity")
CODES = (*COLOR_CODES, "mirror", "upside_down", "blur")  # steps, in the order of their codes in native.c
MIN_VALUES = 1 << 16  # output values per thread, at least
SAMPLES = 16  # compared with the tensor code after compiling
MAX_BYTES = 16 << 20  # of a library file
Step = tuple[str, Tensor | None, Tensor | None]  # one of CODES, values (B or 1, count), mask (B,) bool of the samples


class _Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("on", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


class _Program(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("channels", "height", "width", "out_height", "out_width", "radius")),
        *((name, ctypes.c_void_p) for name in ("region", "flip", "shift", "factor")),
        ("steps", ctypes.c_int32),
        ("step", ctypes.POINTER(_Step)),
    )


@dataclass(frozen=True)
class Resampling:
    """Crop `region` (B, 4) float64 (top, left, height, width), filter of `radius`, mirror where `flip` (B,) bool."""

    region: Tensor
    radius: int
    flip: Tensor | None = None


def run(
    raw: Tensor,
    out: Tensor,
    steps: Sequence[Step],
    shift: Tensor,
    factor: Tensor,
    resampling: Resampling | None = None,
    code: ctypes.CDLL | None = None,
) -> Tensor:
    """Compute raw (B, C, H, W) uint8 -> out (B, C, h, w) float32, both on the CPU.

    First `resampling` (None: the whole image, which has the size of `out`), then the steps, then (x + shift) * factor, (C,)
    float32 each. `code`: the library, by default the one of this machine."""
    references: list[Tensor] = []  # keep the memory behind the pointers alive

    def pointer(x: Tensor | None, dtype: torch.dtype) -> int | None:
        if x is None:
            return None
        references.append(x.to("cpu", dtype).contiguous())
        return references[-1].data_ptr()

    listed = (_Step * max(1, len(steps)))()
    for item, (name, values, mask) in zip(listed, steps, strict=False):
        item.code = CODES.index(name)
        item.on = pointer(mask, torch.bool)
        if values is not None:
            item.count, item.values = values.shape[1], pointer(values.expand(len(raw), -1), torch.float32)
    program = _Program(
        raw.shape[1], raw.shape[2], raw.shape[3], out.shape[2], out.shape[3], resampling.radius if resampling else 0
    )
    if resampling is not None:
        program.region = pointer(resampling.region, torch.float64)
        program.flip = pointer(resampling.flip, torch.bool)
    program.shift, program.factor = pointer(shift, torch.float32), pointer(factor, torch.float32)
    program.steps, program.step = len(steps), listed
    raw = raw.contiguous()
    views = (code or library()).views

    def work(part: range) -> None:
        arguments = (ctypes.c_int64(part.start), ctypes.c_int64(part.stop))
        if views(ctypes.byref(program), ctypes.c_void_p(raw.data_ptr()), ctypes.c_void_p(out.data_ptr()), *arguments):
            raise MemoryError("no memory for the views of an image")

    threads = max(1, min(torch.get_num_threads(), out.numel() // MIN_VALUES, len(raw)))
    ends = [len(raw) * i // threads for i in range(threads + 1)]
    parts = [range(a, b) for a, b in itertools.pairwise(ends)]
    futures = [_pool(os.getpid()).submit(work, part) for part in parts[1:]]
    work(parts[0])
    for future in futures:
        future.result()
    return out


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads for the C code, which releases the GIL. Cached per process, because threads do not survive a fork."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="views")


# ------------------------------------------------------------------------------------------------ the library


class Unavailable(Exception):
    """The compiled code cannot be used; the message says why."""


class _Switch:
    enabled = True
    check: Callable[[ctypes.CDLL, int], bool]  # (code, samples) -> whether its bits are the tensor code's


def use_check(check: Callable[[ctypes.CDLL, int], bool]) -> None:
    """Set the function that compares a compiled library with the tensor code."""
    _Switch.check = check


def enable(setting: bool | str) -> None:
    """Apply `device.native` to this process: auto, true (MachineError when unavailable) or false."""
    _Switch.enabled = setting is not False
    if setting is True and (reason := unavailable_reason()):
        raise MachineError(
            f"device.native=true, but {reason}", "install a C compiler (gcc or clang), or device.native=auto"
        )


def configure(setting: bool | str, device: torch.device, native_views: bool) -> bool:
    """`enable` where it applies: on a CPU, for `native_views`, those of a modality with compiled code. Warn where `auto` falls
    back. Returns whether compiled code is used."""
    if not native_views or device.type != "cpu":
        return False
    enable(setting)
    if setting == "auto" and (reason := unavailable_reason()):
        console.say(f"image views use tensor code, several times slower on a CPU: {reason}")
    return usable()


def usable() -> bool:
    """Whether image views on a CPU use the compiled code."""
    return _Switch.enabled and unavailable_reason() is None


@functools.cache
def unavailable_reason() -> str | None:
    """Why the compiled code cannot be used; None if it can."""
    try:
        library()
    except Unavailable as e:
        return str(e)
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled library, loaded and compared with the tensor code. Raises Unavailable."""
    if os.name != "posix":
        raise Unavailable("views are compiled on Linux and macOS only")
    compiler = find_compiler()
    if compiler is None:
        raise Unavailable("no C compiler was found")
    folder = cache_folder()
    if folder is None and not folders.available():
        raise Unavailable(folders.MISSING)
    try:
        name = f"views-{key(compiler)}"
        for path in folder.glob(f"{name}-*.so") if folder else ():
            code = load(path)
            if code is not None:
                return code
            path.unlink(missing_ok=True)  # damaged: compiled again
        with tempfile.TemporaryDirectory(prefix="sslcli-", dir=folder) as empty:
            return build(compiler, Path(empty) / f"{name}.so", folder)
    except OSError as e:
        raise Unavailable(f"{SOURCE.name} cannot be compiled: {e.strerror or e}") from e


def find_compiler() -> str | None:
    """Absolute path of a C compiler, never one in the working folder; None without any."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    paths = (shutil.which(name) for name in names if name)
    return next((path for path in paths if path and os.path.isabs(path)), None)


def load(path: Path) -> ctypes.CDLL | None:
    """Load a library from the cache, whose name contains the SHA-256 of its content. None unless it belongs to the user, is
    unchanged, loads and passes the check."""
    with contextlib.suppress(OSError):
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or not only_mine(about) or about.st_size > MAX_BYTES:
                return None
            content = file.read()
        if path.stem.rpartition("-")[2] != content_hash(content):
            return None
        code = ctypes.CDLL(str(path))
        return code if _Switch.check(code, 2) else None
    return None


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def build(compiler: str, output: Path, cache: Path | None) -> ctypes.CDLL:
    """Compile native.c to `output` and check it; a library that passes is moved to `cache`, atomically. Raises Unavailable."""
    for arch in (["-march=native"], []):  # some compilers do not support the host processor
        command = [compiler, *FLAGS, *arch, "-o", str(output), str(SOURCE.resolve()), "-lm"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                cwd=output.parent,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Unavailable(f"{compiler} cannot be run: {e}") from e
        if done.returncode == 0:
            break
    else:
        raise Unavailable(
            f"{compiler} cannot compile {SOURCE.name}: {(done.stderr.strip() or 'no message').splitlines()[0]}"
        )
    try:
        code = ctypes.CDLL(str(output))
    except OSError as e:
        raise Unavailable(f"the output of {compiler} cannot be loaded: {e}") from e
    if not _Switch.check(code, SAMPLES):
        raise Unavailable(f"the output of {compiler} for {SOURCE.name} differs from the tensor code")
    if cache is not None:
        with contextlib.suppress(OSError):  # a full disk: compiled again next time
            output.chmod(0o700)
            content = output.read_bytes()
            with open(output, "rb") as file:
                os.fsync(file.fileno())  # before the rename, so that a power failure cannot leave an empty file
            os.replace(output, cache / f"{output.stem}-{content_hash(content)}.so")
    return code


def key(compiler: str) -> str:
    """Cache key of source, flags, compiler and processor: a home folder may be shared by different machines."""
    status = os.stat(compiler)
    words = [
        SOURCE.read_text(),
        *FLAGS,
        compiler,
        str(status.st_mtime_ns),
        sys.platform,
        platform.machine(),
        processor(),
    ]
    return hashlib.blake2b("\0".join(words).encode(), digest_size=12).hexdigest()


def processor() -> str:
    """Name and features of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read(1 << 14).split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
