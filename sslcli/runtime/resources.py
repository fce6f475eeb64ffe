"""Processor cores available to this process, and how OpenMP threads wait. Imports no torch: it must run before torch's import."""

from __future__ import annotations

import math
import os
from pathlib import Path

WAIT_VARIABLES = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
)  # each sets how long a thread spins at a barrier
PHYSICAL_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # bytes
SPIN = "1000"  # about 10 microseconds
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def prepare_environment() -> None:
    """Set environment variables that math libraries read when they are loaded, unless the user has set them. Call before torch is
    imported.

    OpenMP threads wait passively after a short spin: libgomp spins 300,000 times at every barrier by default, and one other busy
    process on the machine then makes a training step several times slower; without any spin, small operators are a third slower on
    an idle machine (docs/results/threads.md). Under a CPU quota OpenBLAS, which considers the affinity mask alone, gets the number
    of cores that the quota allows."""
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": SPIN}
    if usable_cores() < affinity():
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(usable_cores()))


def usable_cores() -> int:
    """Number of usable cores: the affinity mask, or the CPU quota of a control group (rounded up) if smaller."""
    limit = quota()
    return affinity() if limit is None else max(1, min(affinity(), math.ceil(limit)))


def affinity() -> int:
    """Number of cores in the affinity mask of this process."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def quota(membership: Path = MEMBERSHIP, root: Path = CGROUPS) -> float | None:
    """The smallest CPU quota, in cores, of this process's control group and its ancestors; None without one.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`)."""
    limits = []
    for line in _text(membership).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        folder = base / group.lstrip("/")
        for level in (folder, *folder.parents):
            limits.append(_limit(level))
            if level == base:
                break
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(folder: Path) -> float | None:
    """The quota of one control group, in cores; None without one."""
    words = _text(folder / "cpu.max").split() or [
        _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    try:
        allowed, period = (float(word) for word in words)
    except ValueError:  # no such file, or `max`
        return None
    return allowed / period if allowed > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def load_average() -> float | None:
    """Average number of running or runnable processes of the machine over the last minute; None where unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def wait_policy() -> str:
    """How OpenMP threads wait, for `doctor`: the variables that set it."""
    given = [f"{name}={os.environ[name]}" for name in WAIT_VARIABLES if name in os.environ]
    return ", ".join(given) or "OpenMP's default"


def free_memory() -> int:
    """Bytes of memory that may be taken: what the system has left, or the limit of our container."""
    free = 1 << 62
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    free = int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 << 30
        free = pages // 2
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            free = min(free, max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass  # no control group, or one of the first version: the system's own number stands
    return free
