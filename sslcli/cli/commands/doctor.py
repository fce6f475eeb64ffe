"""sslcli doctor: what is installed, which device, what is wrong and how to mend it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import resource
import shutil
from typing import Any

from sslcli import __version__, console
from sslcli.cli.main import Request
from sslcli.config import registry
from sslcli.runtime import cores, folders

PACKAGES = {  # and the module of each that has to import
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
}
VARIABLES = {
    "SSLCLI_RUNS": "where run folders go (default: runs)",
    "SSLCLI_DATA": "where data sets are looked for (default: .data)",
    "NO_COLOR": "no colour",
    "FORCE_COLOR": "colour even off a terminal",
    "CUDA_VISIBLE_DEVICES": "which GPUs torch may see",
    "OMP_NUM_THREADS": "torch's threads on a CPU",
    "OMP_WAIT_POLICY": "how idle threads wait: PASSIVE after a short spin unless set",
}


def main(request: Request) -> int:
    found = examine()
    if console.flag(console.JSON):
        console.out_json(found)
    else:
        for part in (
            "sslcli",
            "python",
            "platform",
            "device",
            "views",
            "cores",
            "threads",
            "memory_gb",
            "disk_free_gb",
            "configs",
            "runs",
        ):
            console.out(f"{part.ljust(13)} {found[part]}")
        for part in ("packages", "extras", "variables"):
            for name, value in found[part].items():
                console.out(f"{part.ljust(13)} {name} {value}")
        for problem in found["problems"]:
            console.out(f"{'problem'.ljust(13)} {problem['what']}", f"{''.ljust(13)} hint: {problem['mend']}")
        console.out("all is well" if not found["problems"] else f"{len(found['problems'])} to mend")
    return 3 if any(p["fatal"] for p in found["problems"]) else 0


def examine() -> dict[str, Any]:
    problems: list[dict[str, Any]] = []

    def problem(what: str, mend: str, fatal: bool = False) -> None:
        problems.append({"what": what, "mend": mend, "fatal": fatal})

    packages = {name: _version(name) for name in PACKAGES}
    for name, version in packages.items():
        if version is None:
            problem(f"{name} is not installed", f"pip install {name}", fatal=True)
        elif reason := _broken(PACKAGES[name]):
            together = "torch torchvision" if "torch" in name else name  # these two must be of one build
            problem(f"{name} does not import: {reason}", f"pip install --force-reinstall {together}", fatal=True)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < 16 * 2**30:
        problem(f"address space is limited to {limit / 2**30:.1f} GB", "ulimit -v unlimited, or ask for more memory")
    device = "none"
    with contextlib.suppress(Exception):  # said above
        import torch

        device = "cpu"
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            device = f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        elif torch.backends.mps.is_available():
            device = "mps"
        elif shutil.which("nvidia-smi"):
            problem("there is an NVIDIA driver, but torch sees no GPU", "install a torch build for your CUDA version")
    runs = folders.runs_root()
    parent = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        problem(f"{parent} cannot be written to", "set SSLCLI_RUNS to a folder that can")
    free = shutil.disk_usage(parent).free / 2**30
    if free < 1:
        problem(f"{free:.1f} GB free at {parent}", "make room, or set SSLCLI_RUNS")
    return {
        "sslcli": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "views": _views(),
        "cores": cores.usable_cores(),
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
        "problems": problems,
    }


def _threads() -> str:
    """What bears on how many threads are worth using, and what other processes take."""
    limit, load = cores.quota(), cores.busy()
    parts = [
        f"{cores.affinity()} of {os.cpu_count()} cores allowed",
        "no CPU quota" if limit is None else f"CPU quota {limit:g} cores",
        f"wait policy {cores.wait_policy()}",
    ]
    if load is not None:
        parts.append(f"load average {load:.1f}")
        if load > 0.5 * cores.usable_cores():
            parts.append("other processes are busy: compare device.threads=1 (sslcli bench does)")
    return ", ".join(parts)


def _views() -> str:
    """What makes views of images on a CPU."""
    try:
        from sslcli.views import native
    except Exception:  # torch does not import: said above
        return "none"
    reason = native.unavailable_reason()
    return "compiled code" if reason is None else f"tensor code, about 4 times slower on a CPU: {reason}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _broken(module: str) -> str | None:
    """Why a module does not import; packages of different builds fail in every way there is."""
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
