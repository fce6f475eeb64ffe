"""What was measured, where and with what, as JSON and as a page."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]  # name, value, low, high


def about(argv: list[str], script: str = "throughput.py") -> dict[str, Any]:
    packages = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "timm", "lightly", "lightly-train")
    found = {}
    for name in (*packages, "stable-pretraining", "albumentations", "solo-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "command": " ".join(["python", f"benchmarks/{script}", *argv]),
        "machine": f"{cores} core{'' if cores == 1 else 's'} ({names[0] if names else 'processor unknown'})",
        "gpu": subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if os.path.exists("/usr/bin/nvidia-smi")
        else None,
        "load": [round(n, 1) for n in os.getloadavg()],  # of others, when it began
        "versions": found,
        "date": time.strftime("%Y-%m-%d"),
    }


def command(*words: str, folder: Path | None = None, threads: int = 1) -> str:
    """The standard output of an sslcli command in a folder. SystemExit with its errors where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(out: Path, found: dict[str, Any], workloads: dict[str, tuple[str, str]]) -> None:
    """`out` (JSON), in which `found` replaces what stood there of the same workloads, and the page that shows it."""
    known = json.loads(out.read_text()) if out.exists() else {}
    known = {name: (known | found)[name] for name in workloads if name in known | found}
    out.write_text(json.dumps(known, indent=1) + "\n")
    lines = [
        "# Throughput",
        "",
        "Made by `benchmarks/throughput.py`. Interleaved rounds; medians, and the range of the",
    ]
    lines += ["rounds. Ratios are relative to the first row of a table."]
    for name, result in known.items():
        title, unit = workloads[name]
        head = result["about"]
        versions = ", ".join(f"{n} {v}" for n, v in head["versions"].items())
        device = f", {head['gpu']}" if head["gpu"] else ""
        lines += ["", f"## {title}", "", f"`{head['command']}`"]
        lines += [f"on {head['machine']}{device}, load of others {head['load'][0]}, {head['date']}; {versions}."]
        lines += [f"Data: {result['data']}.", ""] if result["data"] else [""]
        lines += [f"| | {unit} | range | ratio |", "|---|--:|--:|--:|", *table(result["rows"])]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def seconds_of(
    contestants: dict[str, Callable[[], object]], repeats: int, ends: list[float] | None = None
) -> list[Row]:
    """The median time of each, in turns after one warm-up. One that appends to `ends` says so when it was done."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, once in contestants.items():
            began, before = time.perf_counter(), len(ends or ())
            once()
            end = ends[-1] if ends and len(ends) > before else time.perf_counter()
            if turn:
                times[name].append(end - began)
    return [{"name": n, "value": median(t), "low": min(t), "high": max(t)} for n, t in times.items()]


def table(rows: list[Row]) -> list[str]:
    """A group of rows (the words before a colon) is measured by its first."""
    lines, first = [], {}
    for r in rows:
        group = r["name"].rpartition(":")[0]
        base = first.setdefault(group, r["value"])
        span = f"{number(r['low'])} to {number(r['high'])}" if "low" in r else ""
        lines.append(f"| {r['name']} | {number(r['value'])} | {span} | {r['value'] / base:.3g} |")
        if "low" not in r:
            lines[-1] = f"| {r['name']} | {number(r['value'])} | | |"
    return lines


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
