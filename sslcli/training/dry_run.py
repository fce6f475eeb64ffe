"""`--dry-run`: one forward and backward pass of one batch, with its time and peak memory. Creates no run folder."""

from __future__ import annotations

import contextlib
import copy
import time

from sslcli import console
from sslcli.batch import Batch
from sslcli.config import Config
from sslcli.runtime import progress, threads
from sslcli.training.setup import TrainingSetup, prepare
from sslcli.training.start_screen import start_screen

SLOW_STEP = 5.0  # seconds: a longer step is announced before it starts
COMPARE_SECONDS = 1.0  # limit on comparing thread counts
ESTIMATE_SAMPLES = 8


def dry_run(cfg: Config) -> None:
    """Build a run and compute one loss and its gradients. Prints the start screen, time and memory to stderr."""
    setup = prepare(cfg)
    console.rows(start_screen(setup, None))
    with progress.task("views of the first batch"), contextlib.closing(setup.loader.stream(0)) as stream:
        batch = next(stream)

    def step() -> float:
        with setup.runtime.autocast():
            loss = setup.method(batch)["loss"]
        loss.backward()
        return float(loss.detach())

    if (estimate := estimate_step_seconds(setup, batch)) > SLOW_STEP:
        total = "" if setup.steps is None else f", {setup.steps:,} steps {console.human_time(estimate * setup.steps)}"
        console.say(f"estimated time of a step: {console.human_time(estimate)}{total}; running one")
    start = time.perf_counter()
    with progress.task("first step"):
        loss = step()
    elapsed = time.perf_counter() - start
    memory = setup.runtime.peak_memory_mb()
    console.say(f"dry run: loss {loss:.4f}, {elapsed:.2f} s for the first step, peak memory {memory:,.0f} MB")
    counts = setup.runtime.thread_candidates(cfg["device"]["threads"])
    if len(counts) > 1 and elapsed < COMPARE_SECONDS:
        times = threads.time_threads(step, counts, COMPARE_SECONDS)
        best = threads.fastest(times)
        faster = f"; device.threads={best} is faster on this machine now" if best != counts[0] else ""
        console.say(f"threads: {threads.format_times(times)}{faster}")


def estimate_step_seconds(setup: TrainingSetup, batch: Batch, samples: int = ESTIMATE_SAMPLES) -> float:
    """Seconds of a step, extrapolated from a copy of the method on `samples` samples (after two samples as warm-up)."""
    method, elapsed = copy.deepcopy(setup.method), 0.0
    samples = max(samples, method.min_batch)
    for n in (max(2, method.min_batch), samples):
        labels = None if batch.labels is None else batch.labels[:n]
        captions = None if batch.captions is None else batch.captions[:n]
        part = Batch([v[:n] for v in batch.views], batch.kinds, batch.draw.rows(slice(n)), labels, captions)
        start = time.perf_counter()
        with setup.runtime.autocast():
            loss = method(part)["loss"]
        loss.backward()
        loss.item()  # waits for the device
        elapsed = time.perf_counter() - start
    return elapsed * setup.loader.batch_size / samples
