"""`device.compile=auto`: compile where the planned training is long enough to pay for it, and compiled steps are faster."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.console import human_time, say
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.errors import SslError, first_line
from sslcli.nn.dist import all_reduce_max, broadcast_from_rank0, rank
from sslcli.runs.run import Run
from sslcli.training.loop.measured_steps import MAX_SECONDS, measure
from sslcli.training.loop.strategy import SingleProcess
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import State

COMPILE_SECONDS = 30.0  # measured on an H200
COMPILING_STEPS = 3  # the first compiles, the second and third record CUDA graphs
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
    """Decide from the measured time of a step, or from the budget in seconds, and record the decision in config.yaml, so that a
    resumed run has the same rounding. Where compilation fails, or its steps are no faster, training continues as written."""
    machine = setup.runtime

    def seconds(limit: float) -> float:
        """Of a step, the same number on all processes."""
        return broadcast_from_rank0(measure(setup, state, step, [machine.threads], limit)[machine.threads])

    written = None
    if budget is None:
        assert setup.steps is not None
        written = seconds(MAX_SECONDS)
        budget = written * (setup.steps - state.step)
    machine.compile = budget >= LEAST_SECONDS
    why = f"would not pay in {human_time(budget)} of training"
    if machine.compile:
        written = written or seconds(MAX_SECONDS)
        machine.compile, why = try_compiled(setup, strategy, seconds, written)
    setup.cfg["device"]["compile"] = machine.compile
    run.event("compile", chosen=machine.compile, planned_seconds=round(budget, 1), reason=why)
    run.write_config(setup.cfg)
    if rank() == 0:
        say(f"device.compile={str(machine.compile).lower()}: compiling {why}")


def try_compiled(
    setup: TrainingSetup, strategy: SingleProcess, seconds: Callable[[float], float], written: float
) -> tuple[bool, str]:
    """Compile the model, and undo that unless it works and a step takes less than `written` seconds. Returns whether it is
    compiled, and why. In several processes, compilation is expected to fail in all or in none."""
    compiled = 0.0

    def steps() -> None:
        nonlocal compiled
        for _ in range(COMPILING_STEPS):
            seconds(0.0)
        compiled = seconds(MAX_SECONDS)

    failure = compile_or_undo(setup, strategy, steps)
    if any(all_reduce_max(int(bool(failure)))):
        undo_compile(setup, strategy)
        return False, f"fails: {failure or 'in another process'}"
    pair = f"{1000 * written:.1f} to {1000 * compiled:.1f} ms"
    if compiled >= written:
        undo_compile(setup, strategy)
        return False, f"is no gain: a step goes from {pair}"
    return True, f"shortens a step from {pair}"


def compile_or_undo(setup: TrainingSetup, strategy: SingleProcess, steps: Callable[[], object]) -> str:
    """Compile the model and call `steps`, which trains it. Returns why that fails, after undoing it; empty where it works."""
    setup.runtime.compile = True
    strategy.compile()
    try:
        steps()
    except SslError:
        raise
    except Exception as e:  # a missing compiler, too little memory, an operation that it does not know
        undo_compile(setup, strategy)
        return f"{type(e).__name__}: {first_line(e)}"
    return ""


def undo_compile(setup: TrainingSetup, strategy: SingleProcess) -> None:
    strategy.undo_compile()
    setup.runtime.compile = False
