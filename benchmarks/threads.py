"""Threads beside a busy process: steps, views and evaluations with spinning threads, with ours, and with one thread.

    python benchmarks/threads.py [--seconds 12] [--rounds 3]      (about ten minutes; on an otherwise idle machine)

`spinning` is libgomp's own default, which sslcli replaces: GOMP_SPINCOUNT=300000, all threads. `default` is what sslcli
does with nothing set: threads wait passively after a short spin, and a budget chooses between all of them and one. `one` is
device.threads=1. `busy` is the same beside one other process that never rests. The ways take turns; each figure is the
median of the rounds. Writes docs/results/threads.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "threads.md"
WAYS = {  # environment, words
    "spinning": ({"GOMP_SPINCOUNT": "300000"}, ["device.threads={all}"]),
    "default": ({}, []),
    "one": ({}, ["device.threads=1"]),
}


def sslcli(words: list[str], environment: dict[str, str], folder: Path) -> tuple[str, float]:
    """What it printed, and its seconds."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "SSLCLI_"))}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *words],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"sslcli {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout, time.perf_counter() - began


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Beside so many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def steps_of(words: list[str], seconds: float) -> Callable[[dict[str, str], list[str], Path], float]:
    """Optimizer steps within a budget."""

    def run(environment: dict[str, str], more: list[str], folder: Path) -> float:
        out, _ = sslcli([*words, f"train.budget={seconds:g}s", "train.eval_every=0", "-q", *more], environment, folder)
        status = json.loads((folder / out.strip() / "status.json").read_text())
        return float(status["step"])

    return run


def views_of(words: list[str]) -> Callable[[dict[str, str], list[str], Path], float]:
    """Samples a second of the views alone."""

    def run(environment: dict[str, str], more: list[str], folder: Path) -> float:
        out, _ = sslcli([*words, "repeats=1", "seconds=2", "--json", "-q", *more], environment, folder)
        return float(json.loads(out)["views"]["samples_per_s"])

    return run


def evaluations_of(words: list[str]) -> Callable[[dict[str, str], list[str], Path], float]:
    """Evaluations an hour, the start of the process included."""

    def run(environment: dict[str, str], more: list[str], folder: Path) -> float:
        return 3600 / sslcli([*words, "-q", *more], environment, folder)[1]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(0)
        np.savez(folder / "series.npz", x=draw.normal(size=(600, 3, 128)).astype("float32"), y=np.arange(600) % 4)
        images = draw.integers(0, 256, (4000, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "images.npz", x=images, y=np.arange(4000) % 10)
        series = ["dataset=series", "dataset.path=series.npz"]
        pictures = ["dataset=arrays", "dataset.path=images.npz", "backbone=convnet"]
        small = ["method=simclr", "train.batch_size=64", "train.epochs=null"]
        measured = {
            f"pretrain simclr, series, steps in {options.seconds:g} s": steps_of(
                ["pretrain", *small, *series], options.seconds
            ),
            f"pretrain simclr, 32 x 32 images, steps in {options.seconds:g} s": steps_of(
                ["pretrain", *small, *pictures], options.seconds
            ),
            "views of 32 x 32 images, samples/s": views_of(
                ["bench", "method=simclr", "train.batch_size=256", *pictures]
            ),
            "eval probe, 4,000 images, evaluations/hour": evaluations_of(["eval", "probe", "run=none", *pictures]),
            "eval knn, series, evaluations/hour": evaluations_of(["eval", "knn", "run=none", *series]),
        }
        rows = []
        for title, measure in measured.items():
            row = [title]
            for others in (0, 1):
                figures: dict[str, list[float]] = {way: [] for way in WAYS}
                for _ in range(options.rounds):
                    for way, (environment, words) in WAYS.items():
                        with busy(others):
                            more = [word.format(all=cores) for word in words]
                            figures[way].append(measure(environment, more, folder))
                row += [f"{statistics.median(figures[way]):,.0f}" for way in WAYS]
            rows.append(row)
            print(" | ".join(row), flush=True)
    head = ["", *(f"{state}, {way}" for state in ("idle", "busy") for way in WAYS)]
    table = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    text = (
        "# Threads\n\n"
        f"`python benchmarks/threads.py --seconds {options.seconds:g} --rounds {options.rounds}` on {cores} cores "
        f"({platform.machine()}). Larger is better. `spinning` is libgomp's own default (GOMP_SPINCOUNT=300000) with all threads, "
        "`default` is sslcli with nothing set\n(`OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000`; "
        "a budget chooses between all threads and one), `one` is `device.threads=1`. `busy`: beside another busy process.\n"
        "Medians of the rounds, the ways taking turns.\n\n" + "\n".join(table) + "\n"
    )
    OUT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
