"""`device.compile=auto`: compile where the planned training is long enough to pay for it."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.console import human_time, say
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.nn.dist import broadcast_from_rank0, rank
from sslcli.runs.run import Run
from sslcli.training.loop.measured_steps import MAX_SECONDS, measure
from sslcli.training.loop.strategy import SingleProcess
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import State

COMPILE_SECONDS = 30.0  # measured on an H200
GAIN = 1.25  # the smallest assumed; of 41 methods 1.1 to 2.3 were measured
LEAST_SECONDS = (
    2 * COMPILE_SECONDS / (1 - 1 / GAIN)
)  # of the planned training as written: it gains twice what compiling takes


def choose_compilation(
    setup: TrainingSetup,
    run: Run,
    state: State,
    strategy: SingleProcess,
    step: Callable[[BatchIterator], None],
    budget: float | None,
) -> None:
    """Decide from the measured time of a step as written, or from the budget in seconds, and record the decision in config.yaml, so
    that a resumed run has the same rounding."""
    machine = setup.runtime
    if budget is not None:
        planned = budget
    else:
        assert setup.steps is not None
        seconds = measure(setup, state, step, [machine.threads], MAX_SECONDS)[machine.threads]
        planned = seconds * (setup.steps - state.step)
    planned = broadcast_from_rank0(planned)
    machine.compile = planned >= LEAST_SECONDS
    setup.cfg["device"]["compile"] = machine.compile
    run.event("compile", chosen=machine.compile, planned_seconds=round(planned, 1))
    run.write_config(setup.cfg)
    if rank() == 0:
        verb = "takes half a minute, and the rest is faster" if machine.compile else "would not pay"
        say(f"device.compile={str(machine.compile).lower()}: compiling {verb} in {human_time(planned)} of training")
    if machine.compile:
        strategy.compile()
