"""Throughput of a configuration on this machine: its views alone, its model alone, both together as in training.

The parts take turns for several rounds, so that other load on the machine affects all of them. What precedes the first round is
not counted.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from sslcli import console
from sslcli.builders import require_fingerprint
from sslcli.config import instantiate
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.errors import BadSample, TrainingError
from sslcli.nn.dist import all_gather_object, broadcast_from_rank0
from sslcli.runs import Record
from sslcli.runs.environment import environment
from sslcli.runs.redact import redacted
from sslcli.runtime import compilation, processes, threads
from sslcli.runtime.folders import private_folder
from sslcli.runtime.progress import track
from sslcli.runtime.resources import load_average, usable_cores
from sslcli.training.loop.compile_choice import COMPILING_STEPS, compile_or_undo
from sslcli.training.loop.trainer import Trainer
from sslcli.training.run_training import NullRun, out_of_memory
from sslcli.training.setup import TrainingSetup, prepare
from sslcli.training.state import Horizon, State

HORIZON = Horizon(10**9)  # so many steps that the benchmark stays at progress 0


def bench(setup: TrainingSetup, repeats: int, seconds: float) -> Record:
    """Benchmark a setup in as many processes as it says; this one is rank 0.

    `repeats` rounds of about `seconds` (wall time) for each part."""
    payload = {
        "command": "bench",
        "cfg": setup.cfg,
        "folders": instantiate.trusted_folders(),
        "fingerprint": setup.dataset.fingerprint,
        "repeats": repeats,
        "seconds": seconds,
    }
    try:
        with processes.launch(setup.runtime.process, setup.runtime.device, payload, run_worker):
            return measure(setup, repeats, seconds)
    except torch.OutOfMemoryError as e:
        raise out_of_memory(setup) from e


def run_worker(payload: dict[str, Any]) -> None:
    """The same benchmark in another process."""
    instantiate.trust_folders(payload.get("folders", []))
    setup = prepare(payload["cfg"], rehearsal=False)
    require_fingerprint(setup.dataset, payload["fingerprint"])
    processes.join_group(setup.runtime.device)
    measure(setup, payload["repeats"], payload["seconds"])


def measure(setup: TrainingSetup, repeats: int, seconds: float) -> Record:
    """Measure in every process at the same time; the rates are sums over all of them."""
    with private_folder() as folder:  # for files of the trainer: there is no run folder
        try:
            parts = Parts(setup, Trainer(setup, NullRun(folder), State()))
            parts.choose_threads(seconds)
            if setup.runtime.compile is None:
                parts.compile(seconds)
            for _ in track(range(repeats), "round"):
                parts.round(seconds)
        except TrainingError as e:  # its hint is about a run
            raise TrainingError(e.message, "it diverges within its first steps: try a smaller optimizer.lr") from None
    return parts.results()


@dataclass
class Part:
    """A function that is called repeatedly, and its throughput."""

    call: Callable[[Any], None]
    samples: int  # of one call in this process
    calls: int | None = None  # of a round
    rates: list[float] = field(default_factory=list)  # samples/s over all processes, one of each round

    def run_round(self, argument: object, seconds: float, device: torch.device, warmup: int = 1) -> None:
        """Measure for about `seconds`, after `warmup` calls."""
        for _ in range(warmup):
            self.call(argument)
        if self.calls is None:
            self.calls = self.count_calls(argument, seconds, device)
        rate = self.calls * self.samples / _time(self.call, argument, self.calls, device)
        self.rates.append(sum(all_gather_object(rate)))

    def count_calls(self, argument: object, seconds: float, device: torch.device) -> int:
        """The number of calls that take about `seconds`, from at least a third of that time: the first batches of workers are ready
        and cost nothing."""
        calls = 1
        while (elapsed := broadcast_from_rank0(_time(self.call, argument, calls, device))) < seconds / 3:
            calls *= 2
        return max(1, round(calls * seconds / elapsed))

    def summary(self) -> Record:
        low, high = min(self.rates), max(self.rates)
        return {"samples_per_s": statistics.median(self.rates), "min": low, "max": high, "rounds": self.rates}


def _time(call: Callable[[Any], None], argument: object, calls: int, device: torch.device) -> float:
    """Seconds of `calls` calls."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call(argument)
    synchronize(device)
    return max(time.perf_counter() - start, 1e-9)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Parts:
    """The parts of one setup in this process: views, model, end to end, and decoding for streamed data."""

    def __init__(self, setup: TrainingSetup, trainer: Trainer):
        self.setup, self.trainer = setup, trainer
        self.streamed = setup.dataset.pretrain.resident is None
        setup.method.train()
        start = time.perf_counter()
        with contextlib.closing(setup.loader.stream()) as stream:
            self.batches = [next(stream) for _ in range(setup.loader.accumulate)]
        self.model_step()
        synchronize(setup.runtime.device)
        self.first_step = time.perf_counter() - start
        self.model_memory = 0.0
        micro = len(self.batches[0])
        step = micro * setup.loader.accumulate
        self.views = Part(lambda stream: next(stream), micro)
        self.model = Part(lambda _: self.model_step(), step)
        self.whole = Part(self.trainer_step, step)
        self.decode = Part(self.decode_one, 1)
        self.ids = count()
        self.compared: dict[int, float] = {}  # seconds of a model step by thread count
        self.written: Part | None = (
            None  # the model as written, where device.compile=auto compares it with the compiled one
        )
        self.compile_seconds = 0.0

    def choose_threads(self, seconds: float) -> None:
        """Measure with the thread count whose model step is faster."""
        machine = self.setup.runtime
        counts = machine.thread_candidates(self.setup.cfg["device"]["threads"])
        if len(counts) > 1:
            self.compared = threads.time_threads(self.model_step, counts, seconds)
            machine.set_threads(threads.fastest(self.compared))

    def compile(self, seconds: float) -> None:
        """Measure the model as written, then compile it. Where that fails, the benchmark is of the model as written."""
        device = self.setup.runtime.device
        self.written = Part(lambda _: self.model_step(), self.model.samples)
        self.written.run_round(None, seconds, device)
        start = time.perf_counter()

        def steps() -> None:
            for _ in range(COMPILING_STEPS):
                self.model_step()
            synchronize(device)

        if failure := compile_or_undo(self.setup, self.trainer.strategy, steps):
            console.warn(f"compiling fails: {failure}", "device.compile=false")
            self.written = None
        self.compile_seconds = time.perf_counter() - start

    def round(self, seconds: float) -> None:
        device, loader = self.setup.runtime.device, self.setup.loader
        self.model.run_round(None, seconds, device)  # while no data worker runs
        self.model_memory = self.model_memory or self.setup.runtime.peak_memory_mb()
        with contextlib.closing(loader.stream(self.trainer.state.step)) as stream:
            warmup = 1 + (loader.workers if self.streamed else 0)  # every worker starts with a batch
            self.views.run_round(stream, seconds, device, warmup)
            self.whole.run_round(stream, seconds, device)
        if self.streamed:
            self.decode.run_round(None, seconds / 4, device)

    def model_step(self) -> None:
        """An optimizer step on given views: the lower bound for any training loop."""
        setup, strategy = self.setup, self.trainer.strategy
        setup.optimizer.zero_grad(set_to_none=True)
        compilation.mark_step(setup.runtime.compile)
        for batch in self.batches:
            with strategy.gradient_sync(last=batch is self.batches[-1]):
                with setup.runtime.autocast():
                    loss = strategy.model(batch)["loss"]
                (loss / len(self.batches)).backward()
        if (clip := setup.cfg["train"]["clip"]) is not None:
            torch.nn.utils.clip_grad_norm_(setup.method.parameters(), clip)
        setup.optimizer.step()
        setup.method.after_step(0.0)

    def trainer_step(self, stream: BatchIterator) -> None:
        """A step as in `Trainer.fit`."""
        self.trainer.step(stream, HORIZON, self.trainer.meter)
        self.trainer.state.step += 1

    def decode_one(self, _: None) -> None:
        """Decode one file to a full-size sample in this process. An unreadable one costs its time too."""
        source = self.setup.dataset.pretrain
        with contextlib.suppress(BadSample):
            source.read(next(self.ids) % len(source))

    def results(self) -> Record:
        setup = self.setup
        results = {"views": self.views.summary(), "model": self.model.summary(), "end_to_end": self.whole.summary()}
        if self.streamed:
            results["decode"] = self.decode.summary()
        results["model"]["peak_memory_mb"] = max(all_gather_object(self.model_memory))
        cores = self.cores()
        if cores:
            results["views"] |= {"cores": cores, "samples_per_s_core": results["views"]["samples_per_s"] / cores}
        if self.written is not None:
            written, rate = self.written.summary()["samples_per_s"], results["model"]["samples_per_s"]
            saved = self.model.samples * (1 / written - 1 / rate)  # seconds of a step
            steps = math.ceil(self.compile_seconds / saved) if saved > 0 else None
            results["compiled"] = {
                "as_written": written,
                "gain": rate / written,
                "seconds": self.compile_seconds,
                "steps_to_pay": steps,
            }
        lost = 1 - results["end_to_end"]["samples_per_s"] / results["model"]["samples_per_s"]
        return results | {
            "lost": lost,
            "peak_memory_mb": max(all_gather_object(setup.runtime.peak_memory_mb())),  # of the largest process
            "startup": {"first_step": self.first_step},
            "config": redacted(setup.cfg),
            "machine": environment()
            | {
                "device": setup.runtime.describe(),
                "cores": usable_cores(),
                "threads": setup.runtime.threads,
                "seconds_a_step_by_threads": {str(n): elapsed for n, elapsed in self.compared.items()},
                "load": load_average(),
                "workers": setup.runtime.workers if self.streamed else 0,
                "processes": setup.loader.world_size,
            },
        }

    def cores(self) -> int | None:
        """The number of cores that compute views (threads of torch, or one for each worker); None where a GPU does."""
        if self.setup.runtime.device.type != "cpu":
            return None
        used = max(self.setup.runtime.threads, self.setup.runtime.workers + 1 if self.streamed else 1)
        return min(usable_cores(), used * self.setup.loader.world_size)


def process_age() -> float | None:
    """Seconds since this process started; None where /proc does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - started
    except (OSError, ValueError, IndexError):
        return None
