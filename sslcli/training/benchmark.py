"""What a configuration costs on this machine: its views alone, its network alone, both together as the trainer has them.

The parts take turns for several rounds, so that what else the machine does meets all of them; what comes before the first
round is not counted.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from sslcli.config import instantiate
from sslcli.data.images.decode import BadImage
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.errors import TrainingError
from sslcli.nn.dist import all_gather_object, broadcast_from_rank0
from sslcli.runs.redact import masked
from sslcli.runs.run import environment
from sslcli.runtime import compilation, processes, threads
from sslcli.runtime.cores import busy, usable_cores
from sslcli.runtime.folders import private_folder
from sslcli.runtime.progress import track
from sslcli.training.launch import NullRun, out_of_memory, same_data, trust
from sslcli.training.setup import Job, prepare
from sslcli.training.state import Plan, State
from sslcli.training.trainer import Trainer

START = Plan(10**9)  # a run so long that all of the bench lies in its first moments


def bench(job: Job, repeats: int, seconds: float) -> dict[str, Any]:
    """The numbers of a job: `repeats` rounds of about `seconds` a part. Seconds are of `time.perf_counter`.

    In as many processes as the job says; this one is their rank 0."""
    told = {
        "word": "bench",
        "cfg": job.cfg,
        "folders": instantiate.trusted_folders(),
        "fingerprint": job.dataset.fingerprint,
        "repeats": repeats,
        "seconds": seconds,
    }
    try:
        with processes.launch(job.runtime.process, job.runtime.device, told, follow):
            return measure(job, repeats, seconds)
    except torch.OutOfMemoryError as e:
        raise out_of_memory(job) from e


def follow(told: dict[str, Any]) -> None:
    """The same in another process."""
    trust(told.get("folders", []))
    job = prepare(told["cfg"], rehearsal=False)
    same_data(job.dataset, told["fingerprint"])
    processes.join_group(job.runtime.device)
    measure(job, told["repeats"], told["seconds"])


def measure(job: Job, repeats: int, seconds: float) -> dict[str, Any]:
    """Every process at the same time; the numbers are of all of them."""
    with private_folder() as folder:  # for what the trainer may want to leave: there is no run
        try:
            parts = Parts(job, Trainer(job, NullRun(folder), State()))
            parts.choose_threads(seconds)
            for _ in track(range(repeats), "round"):
                parts.round(seconds)
        except TrainingError as e:  # its hint is about a run
            raise TrainingError(e.message, "it goes bad within its first steps: try a smaller optimizer.lr") from None
    return parts.numbers()


@dataclass
class Part:
    """Something that is done again and again, `samples` at a time by this process, and how fast it was."""

    once: Callable[[Any], None]
    samples: int
    times: int | None = None  # of a round
    rates: list[float] = field(default_factory=list)  # samples a second over all processes, one a round

    def take(self, argument: Any, seconds: float, device: torch.device, ahead: int = 1) -> None:
        """A round of about `seconds`, after `ahead` times that do not count."""
        for _ in range(ahead):
            self.once(argument)
        if self.times is None:
            self.times = self.how_often(argument, seconds, device)
        rate = self.times * self.samples / _timed(self.once, argument, self.times, device)
        self.rates.append(sum(all_gather_object(rate)))

    def how_often(self, argument: Any, seconds: float, device: torch.device) -> int:
        """Times that take about `seconds`. Tried for a good part of them: what workers have ready costs nothing at first."""
        times = 1
        while (took := broadcast_from_rank0(_timed(self.once, argument, times, device))) < seconds / 3:
            times *= 2
        return max(1, round(times * seconds / took))

    def told(self) -> dict[str, Any]:
        low, high = min(self.rates), max(self.rates)
        return {"samples_per_s": statistics.median(self.rates), "min": low, "max": high, "rounds": self.rates}


def _timed(once: Callable[[Any], None], argument: Any, times: int, device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    for _ in range(times):
        once(argument)
    synchronise(device)
    return max(time.perf_counter() - began, 1e-9)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Parts:
    """The parts of one job in this process."""

    def __init__(self, job: Job, trainer: Trainer):
        self.job, self.trainer = job, trainer
        self.streamed = job.dataset.pretrain.resident is None
        job.method.train()
        began = time.perf_counter()
        with contextlib.closing(job.loader.stream()) as stream:
            self.batches = [next(stream) for _ in range(job.loader.accumulate)]
        self.model_step()
        synchronise(job.runtime.device)
        self.first_step = time.perf_counter() - began
        self.memory_of_model = 0.0
        micro = len(self.batches[0])
        step = micro * job.loader.accumulate
        self.views = Part(lambda stream: next(stream), micro)
        self.model = Part(lambda _: self.model_step(), step)
        self.whole = Part(self.trainer_step, step)
        self.decode = Part(self.decode_one, 1)
        self.ids = count()
        self.compared: dict[int, float] = {}  # seconds of a model step by thread count

    def choose_threads(self, seconds: float) -> None:
        """Measures with the thread count whose model step is faster."""
        machine = self.job.runtime
        counts = threads.candidates(self.job.cfg["device"]["threads"], machine)
        if len(counts) > 1:
            self.compared = threads.compare(self.model_step, counts, seconds)
            threads.use(machine, threads.better(self.compared))

    def round(self, seconds: float) -> None:
        device, loader = self.job.runtime.device, self.job.loader
        self.model.take(None, seconds, device)  # with no worker process beside it
        self.memory_of_model = self.memory_of_model or self.job.runtime.peak_memory_mb()
        with contextlib.closing(loader.stream(self.trainer.state.step)) as stream:
            ahead = 1 + (loader.workers if self.streamed else 0)  # all workers start with a batch
            self.views.take(stream, seconds, device, ahead)
            self.whole.take(stream, seconds, device)
        if self.streamed:
            self.decode.take(None, seconds / 4, device)

    def model_step(self) -> None:
        """The floor: what any loop has to do for a step, on views that are there."""
        job, spread = self.job, self.trainer.spread
        job.optimizer.zero_grad(set_to_none=True)
        compilation.new_step(job.runtime.compile)
        for batch in self.batches:
            with spread.averaging(last=batch is self.batches[-1]):
                with job.runtime.autocast():
                    loss = spread.model(batch)["loss"]
                (loss / len(self.batches)).backward()
        if (clip := job.cfg["train"]["clip"]) is not None:
            torch.nn.utils.clip_grad_norm_(job.method.parameters(), clip)
        job.optimizer.step()
        job.method.after_step(0.0)

    def trainer_step(self, stream: BatchIterator) -> None:
        """As `Trainer.fit` has it."""
        self.trainer.step(stream, START, self.trainer.meter)
        self.trainer.state.step += 1

    def decode_one(self, _: None) -> None:
        """One file to a whole picture, by this process; a bad one costs its time too."""
        source = self.job.dataset.pretrain
        with contextlib.suppress(BadImage):
            source.read(next(self.ids) % len(source))

    def numbers(self) -> dict[str, Any]:
        job = self.job
        found = {"views": self.views.told(), "model": self.model.told(), "end_to_end": self.whole.told()}
        if self.streamed:
            found["decode"] = self.decode.told()
        found["model"]["peak_memory_mb"] = max(all_gather_object(self.memory_of_model))
        cores = self.cores()
        if cores:
            found["views"] |= {"cores": cores, "samples_per_s_core": found["views"]["samples_per_s"] / cores}
        lost = 1 - found["end_to_end"]["samples_per_s"] / found["model"]["samples_per_s"]
        return found | {
            "lost": lost,
            "peak_memory_mb": max(all_gather_object(job.runtime.peak_memory_mb())),  # of the largest process
            "startup": {"first_step": self.first_step},
            "config": masked(job.cfg),
            "machine": environment()
            | {
                "device": job.runtime.describe(),
                "cores": usable_cores(),
                "threads": job.runtime.threads,
                "seconds_a_step_by_threads": {str(n): took for n, took in self.compared.items()},
                "load": busy(),
                "workers": job.runtime.workers if self.streamed else 0,
                "processes": job.loader.world_size,
            },
        }

    def cores(self) -> int | None:
        """Those that make views may use: torch's threads, and a worker each; None where a GPU makes them."""
        if self.job.runtime.device.type != "cpu":
            return None
        own = max(self.job.runtime.threads, self.job.runtime.workers + 1 if self.streamed else 1)
        return min(usable_cores(), own * self.job.loader.world_size)


def age() -> float | None:
    """Seconds since this process was started; None where the system does not tell."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - started
    except (OSError, ValueError, IndexError):
        return None
