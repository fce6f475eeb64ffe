"""`train.budget`: the number of steps that fit into a time, and the fastest number of threads.

Decision docs/explanation/decisions/0006 has the reasons."""

from __future__ import annotations

import time
from collections.abc import Callable

from sslcli.config.checks import parse_duration
from sslcli.console import human_time, plural, say, warn
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.nn.dist import broadcast_from_rank0, rank
from sslcli.runs.run import Run
from sslcli.runtime import threads
from sslcli.training.loop.measured_steps import MAX_SECONDS, measure
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import Horizon, State

MIN_STEPS, MIN_EPOCHS = 100, 3  # a budget that allows fewer is warned of
REFERENCE_STEPS = 1000  # a budget that allows fewer reports the time of as many
TOLERANCE = 0.02  # of the budget: a larger error at the predicted end adjusts the horizon


class Budget:
    """The time budget of a run."""

    def __init__(self, setup: TrainingSetup, run: Run, state: State):
        self.setup, self.run, self.state = setup, run, state
        self.text = setup.cfg["train"]["budget"]
        self.seconds = parse_duration(self.text, "train.budget")

    def plan(self, step: Callable[[BatchIterator], None], start: float) -> Horizon:
        """The horizon from measured steps. `step` trains one step, `start` is the start of the run (`time.perf_counter`)."""
        counts = self.setup.runtime.thread_candidates(self.setup.cfg["device"]["threads"])
        times = measure(self.setup, self.state, step, counts, min(MAX_SECONDS, self.seconds / 10))
        self.choose_threads(times)
        step_seconds = broadcast_from_rank0(times[self.setup.runtime.threads])
        remaining = broadcast_from_rank0(self.seconds - (time.perf_counter() - start))
        steps = self.state.step + max(1, int(remaining / step_seconds))
        self.run.event("planned", budget=self.seconds, seconds_a_step=step_seconds, steps=steps)
        if rank() == 0:
            resizable = "image_size" in self.setup.cfg["dataset"]
            message, hint = describe_budget(
                self.text, steps, step_seconds, self.setup.loader.steps_per_epoch, resizable
            )
            warn(message, hint) if hint else say(message)
        return Horizon(steps)

    def choose_threads(self, times: dict[int, float]) -> None:
        """Use the fastest thread count. One that differs from the default is saved in config.yaml, so that a resumed run has the
        same rounding."""
        best, machine = threads.fastest(times), self.setup.runtime
        if best == machine.threads:
            return
        say(f"device.threads={best}: faster on this machine now ({threads.format_times(times)})")
        machine.set_threads(best)
        self.setup.cfg["device"]["threads"] = best
        self.run.event("threads", chosen=best, seconds_a_step={str(n): t for n, t in times.items()})
        self.run.write_config(self.setup.cfg)

    def adjust(self, horizon: Horizon) -> None:
        """Move the last step where the run would miss the budget by more than `TOLERANCE`."""
        state = self.state
        state.seconds = broadcast_from_rank0(state.seconds)
        step_seconds = state.seconds / state.step
        end = state.seconds + step_seconds * (horizon.total - state.step)
        if abs(end - self.seconds) > TOLERANCE * self.seconds:
            horizon.move(state.step, state.step + int((self.seconds - state.seconds) / step_seconds))


def describe_budget(
    budget: object, steps: int, step_seconds: float, steps_per_epoch: int, resizable: bool = False
) -> tuple[str, str]:
    """What a budget allows, and a hint where that is too little to learn from (else ""). `resizable`: the data set is resized to
    dataset.image_size."""
    epochs = steps / steps_per_epoch
    message = (
        f"train.budget={budget}: about {plural(steps, 'step')}, {epochs:.3g} epochs, at {step_seconds:.2g} s a step"
    )
    if steps < REFERENCE_STEPS:
        message += f"; {REFERENCE_STEPS:,} steps would take {human_time(REFERENCE_STEPS * step_seconds)}"
    if steps >= MIN_STEPS and epochs >= MIN_EPOCHS:
        return message, ""
    enough = max(MIN_STEPS, MIN_EPOCHS * steps_per_epoch)
    longer = f"train.budget={human_time(max(1, enough * step_seconds))} is {enough:,} steps"
    smaller = "smaller images (dataset.image_size), " if resizable else ""
    faster = f"{smaller}a smaller backbone or a smaller train.batch_size make steps faster"
    return f"{message}: too few to learn much", f"{longer}; {faster}"
