"""The number of torch threads: at the start of a process, and selected by timing steps with all threads and with one.

On a busy machine, or for a small network, synchronizing threads at every operator costs more than parallelism gains."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch

from sslcli.runtime.resources import usable_cores

MAX_RATIO = 0.95  # of step times, for choosing fewer threads: another thread count changes rounding


def set_initial_threads(requested: int | None, local_world_size: int) -> None:
    """Set the number of torch threads with which a process begins.

    `requested` (`device.threads`), else a share of the usable cores for each of several processes, else torch's choice, at most
    the usable cores: torch ignores CPU quotas. OMP_NUM_THREADS is left alone."""
    if requested is not None:
        torch.set_num_threads(requested)
    elif local_world_size > 1:
        torch.set_num_threads(max(1, usable_cores() // local_world_size))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def time_threads(
    step: Callable[[], object], counts: list[int], seconds: float, enough: Callable[[float, int], bool] | None = None
) -> dict[int, float]:
    """Median seconds of `step()` per thread count, in rounds of one step per count for about `seconds` in total.

    The first round, which fills pipelines and caches, is ignored. A step longer than `seconds` is timed with the first count only:
    large steps parallelize well. `enough(elapsed, rounds)` ends the rounds (default: when the time is over); there is only one
    round if that took ten times as long."""
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


def fastest(times: dict[int, float]) -> int:
    """The thread count to use: the first one, unless another is clearly faster."""
    first = next(iter(times))
    best = min(times, key=lambda n: times[n])
    return best if times[best] < MAX_RATIO * times[first] else first


def format_times(times: dict[int, float]) -> str:
    """`1 thread 0.012 s per step, 2 threads 0.41 s per step`."""
    return ", ".join(f"{n} thread{'' if n == 1 else 's'} {took:.3g} s per step" for n, took in sorted(times.items()))
