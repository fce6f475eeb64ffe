"""The time of a training step, measured before the first one of a run, and undone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch

from sslcli.data.loading.prefetch import BatchIterator
from sslcli.nn.dist import all_reduce_max
from sslcli.runtime import threads
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import State

MAX_SECONDS = 3.0
MAX_ROUNDS = 50


def measure(
    setup: TrainingSetup, state: State, step: Callable[[BatchIterator], None], counts: list[int], max_seconds: float
) -> dict[int, float]:
    """Seconds of a step for each of these thread counts, in about `max_seconds`. The steps are undone, also where one fails."""
    tensors = [t.detach() for t in (*setup.method.parameters(), *setup.method.buffers())]
    copies = [t.clone() for t in tensors]
    optimizer_state = copy.deepcopy(setup.optimizer.state_dict())
    counters = state.skipped, state.skipped_in_a_row
    with contextlib.closing(setup.loader.stream(state.step)) as stream:

        def timed_step() -> None:
            step(stream)
            if setup.runtime.device.type == "cuda":
                torch.cuda.synchronize()

        def enough(elapsed: float, rounds: int) -> bool:
            return any(all_reduce_max(int(elapsed >= max_seconds), int(rounds >= MAX_ROUNDS)))

        try:
            return threads.time_threads(timed_step, counts, max_seconds, enough)
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, copies, strict=True):
                    tensor.copy_(value)
            setup.optimizer.load_state_dict(optimizer_state)
            state.skipped, state.skipped_in_a_row = counters
