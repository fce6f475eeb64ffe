"""sslcli doctor: versions, device and resources of this installation, its problems, and how to fix them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import resource
import shutil
from pathlib import Path

from sslcli import __version__, console
from sslcli.cli.arguments import Request
from sslcli.config import registry
from sslcli.runs import Record
from sslcli.runtime import folders, resources

PACKAGES = {  # package -> a module of it that must be importable
    "torch": "torch",
    "torchvision": "torchvision",
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "rich": "rich",
    "scikit-learn": "sklearn.linear_model",
    "safetensors": "safetensors.torch",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pillow": "PIL.Image",
}
EXTRAS = {
    "timm": "timm",
    "hydra-joblib-launcher": "sweep",
    "hydra-submitit-launcher": "slurm",
    "hydra-optuna-sweeper": "hpo",
    "pyarrow": "table",
    "tokenizers": "text",
    "soundfile": "audio",
    "av": "video",
}
VARIABLES = {
    "SSLCLI_RUNS": "where runs are stored (default: runs)",
    "SSLCLI_DATA": "where data sets are stored (default: .data)",
    "NO_COLOR": "no color",
    "FORCE_COLOR": "color without a terminal too",
    "CUDA_VISIBLE_DEVICES": "the GPUs that torch may use",
    "OMP_NUM_THREADS": "number of torch's threads on a CPU",
    "ONEDNN_MAX_CPU_ISA": "instructions that a CPU may use: AVX512_CORE trains in fp32 where auto would train in bf16",
    "OMP_WAIT_POLICY": "how idle threads wait: PASSIVE after a short spin unless set",
}


def main(request: Request) -> int:
    report = examine()
    problems = report["problems"]
    if console.flag(console.JSON):
        console.out_json(report)
        return _exit_code(problems)
    for part, value in report.items():
        if isinstance(value, str | int | float | None):
            console.out(f"{part.ljust(13)} {value}")
    for part in ("packages", "extras", "variables"):
        for name, value in report[part].items():
            console.out(f"{part.ljust(13)} {name} {value}")
    for problem in problems:
        console.out(f"{'problem'.ljust(13)} {problem['what']}", f"{''.ljust(13)} hint: {problem['mend']}")
    count = len(problems)
    console.out(f"{count} problem{'s' * (count != 1)} found" if problems else "no problems found")
    return _exit_code(problems)


def _exit_code(problems: list[Record]) -> int:
    return 3 if any(p["fatal"] for p in problems) else 0


def examine() -> Record:
    """Versions, device, resources and settings; `problems` are dictionaries with the keys of `_problem`."""
    packages = {name: _version(name) for name in PACKAGES}
    device, device_problems = _device()
    runs = folders.runs_root()
    free, storage_problems = _storage(runs)
    return {
        "sslcli": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "precision": _precision(),
        "views": _views(),
        "cores": resources.usable_cores(),
        "threads": _threads(),
        "memory_gb": _memory_gb(),
        "disk_free_gb": round(free, 1),
        "configs": str(registry.config_dir()),
        "runs": str(runs.absolute()),
        "packages": packages,
        "extras": {
            name: _version(name) or f"not installed (pip install 'sslcli[{extra}]')" for name, extra in EXTRAS.items()
        },
        "plugins": list(registry.plugin_packages()),
        "variables": {
            name: f"{os.environ[name]}" if name in os.environ else f"unset: {what}" for name, what in VARIABLES.items()
        },
        "problems": [*_package_problems(packages), *_memory_problems(), *device_problems, *storage_problems],
    }


def _problem(what: str, fix: str, fatal: bool = False) -> Record:
    return {"what": what, "mend": fix, "fatal": fatal}  # `mend`: the key that scripts read


def _package_problems(packages: dict[str, str | None]) -> list[Record]:
    problems = []
    for name, version in packages.items():
        if version is None:
            problems.append(_problem(f"{name} is not installed", f"pip install {name}", fatal=True))
        elif reason := _import_error(PACKAGES[name]):
            together = "torch torchvision" if "torch" in name else name  # these two must be of one build
            fix = f"pip install --force-reinstall {together}"
            problems.append(_problem(f"{name} cannot be imported: {reason}", fix, fatal=True))
    return problems


def _memory_problems() -> list[Record]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= 16 * 2**30:
        return []
    return [
        _problem(f"address space is limited to {limit / 2**30:.1f} GB", "ulimit -v unlimited, or request more memory")
    ]


def _device() -> tuple[str, list[Record]]:
    """The device that torch uses; `none` where torch cannot be imported, which `_package_problems` reports."""
    try:
        import torch
    except Exception:
        return "none", []
    with contextlib.suppress(Exception):
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            return f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB", []
        if torch.backends.mps.is_available():
            return "mps", []
        if shutil.which("nvidia-smi"):
            what = "an NVIDIA driver is installed, but torch finds no GPU"
            return "cpu", [_problem(what, "install a torch build for your CUDA version")]
    return "cpu", []


def _precision() -> str:
    """What device.precision=auto is in training; `none` where torch cannot be imported."""
    try:
        from sslcli.runtime import device

        return device.auto_precision(device.kind_of({"type": "auto"}), training=True)
    except Exception:
        return "none"


def _storage(runs: Path) -> tuple[float, list[Record]]:
    """Free space in GB where runs are stored, and what is wrong with that folder."""
    parent = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.exists())
    problems = []
    if not os.access(parent, os.W_OK):
        problems.append(_problem(f"{parent} is not writable", "set SSLCLI_RUNS to a folder that is"))
    free = shutil.disk_usage(parent).free / 2**30
    if free < 1:
        problems.append(_problem(f"{free:.1f} GB free at {parent}", "free some space, or set SSLCLI_RUNS"))
    return free, problems


def _threads() -> str:
    """The limits on the number of threads, and the load of other processes."""
    limit, load = resources.quota(), resources.load_average()
    parts = [
        f"{resources.affinity()} of {os.cpu_count()} cores allowed",
        "no CPU quota" if limit is None else f"CPU quota {limit:g} cores",
        f"wait policy {resources.wait_policy()}",
    ]
    if load is not None:
        parts.append(f"load average {load:.1f}")
        if load > 0.5 * resources.usable_cores():
            parts.append("other processes are busy: compare device.threads=1 (sslcli bench does)")
    return ", ".join(parts)


def _views() -> str:
    """The implementation that computes views of images on a CPU, and on a GPU where there is one."""
    try:
        import torch

        from sslcli.views.images import native, triton_views
    except Exception:  # torch cannot be imported: `_package_problems` reports it
        return "none"
    reason = native.unavailable_reason()
    views = "compiled code" if reason is None else f"tensor code, about 4 times slower on a CPU: {reason}"
    if not torch.cuda.is_available():
        return views
    reason = triton_views.unavailable_reason(torch.device("cuda", torch.cuda.current_device()))
    return f"{views}; on a GPU {'Triton kernels' if reason is None else f'tensor code: {reason}'}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(module: str) -> str | None:
    """Why a module cannot be imported, or None. Packages of different builds raise any kind of exception."""
    try:
        importlib.import_module(module)
    except Exception as e:
        return f"{type(e).__name__}: {e}".splitlines()[0]
    return None


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
