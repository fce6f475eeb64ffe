"""How many of torch's processor threads to use: all against one, measured on the steps of the job at hand.

On a busy machine, or for a small network, threads that wait for each other at every operator cost more than they share."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch

from sslcli.runtime.device import Runtime

WORTH = 0.95  # fewer threads must take less than this share of the time: a change of threads changes the rounding


def candidates(wanted: int | None, machine: Runtime) -> list[int]:
    """Thread counts to compare, the present one first. `wanted`: `device.threads`; a count that the user gave stays."""
    free = wanted is None and "OMP_NUM_THREADS" not in os.environ
    compared = free and machine.device.type == "cpu" and machine.process.world_size == 1 and machine.threads > 1
    return [machine.threads, 1] if compared else [machine.threads]


def compare(
    step: Callable[[], object], counts: list[int], seconds: float, enough: Callable[[float, int], bool] | None = None
) -> dict[int, float]:
    """Median seconds of `step()` for each thread count. The counts take turns, one step each, for about `seconds` in all; the first
    round fills pipelines and caches and is left out. A step that takes longer than `seconds` is timed with the first count alone:
    large steps share well. `enough(elapsed, rounds)` ends the rounds (default: the time is over); there is one round alone where
    that took ten times as long."""
    enough = enough or (lambda elapsed, rounds: elapsed >= seconds)
    before = torch.get_num_threads()
    counts = list(dict.fromkeys(counts))
    times: dict[int, list[float]] = {n: [] for n in counts}
    began, rounds = time.perf_counter(), 0
    try:
        while rounds == 0 or not enough((time.perf_counter() - began) / (10 if rounds == 1 else 1), rounds):
            for n in counts:
                torch.set_num_threads(n)
                start = time.perf_counter()
                step()
                times[n].append(time.perf_counter() - start)
                if times[counts[0]][0] > seconds:
                    times = {n: times[n] for n in counts[:1]}
                    break
            counts = list(times)
            rounds += 1
    finally:
        torch.set_num_threads(before)
    return {n: statistics.median(taken[1:] or taken) for n, taken in times.items()}


def better(times: dict[int, float]) -> int:
    """The count to use: the first that was compared, unless another is clearly faster."""
    first = next(iter(times))
    best = min(times, key=lambda n: times[n])
    return best if times[best] < WORTH * times[first] else first


def use(machine: Runtime, count: int) -> None:
    """From now on torch uses `count` threads in this process."""
    torch.set_num_threads(count)
    machine.threads = count


def words(times: dict[int, float]) -> str:
    """`1 thread 0.012 s a step, 2 threads 0.41 s`."""
    return ", ".join(f"{n} thread{'' if n == 1 else 's'} {took:.3g} s a step" for n, took in sorted(times.items()))
