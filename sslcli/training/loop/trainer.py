"""The training loop: set the learning rate, take a batch, step; at intervals log, save, evaluate, stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sslcli import optim
from sslcli.config import instantiate
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.errors import Interrupted, Stopped
from sslcli.nn.dist import all_reduce_max_, rank, world_size
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run
from sslcli.runtime import compilation, progress
from sslcli.runtime.signals import StopSignal, stop_signals
from sslcli.training.loop import nonfinite
from sslcli.training.loop.budget import Budget
from sslcli.training.loop.collapse import check_collapse
from sslcli.training.loop.compile_choice import choose_compilation
from sslcli.training.loop.meter import Meter
from sslcli.training.loop.online import evaluate_online, evaluation_interval
from sslcli.training.loop.optimizer_state import full_tensor
from sslcli.training.loop.saver import Saver
from sslcli.training.loop.strategy import SingleProcess, make_strategy
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import Horizon, State

MAX_UNREADABLE_EVENTS = 20  # unreadable samples named in events.jsonl


class StepFlags(NamedTuple):
    """What any of the processes met in a step; all act on it."""

    nonfinite: int = 0  # a loss or gradient that is not finite
    stop: int = 0  # the number of a signal
    save: int = 0  # a checkpoint is due


class Trainer:
    """One run in this process."""

    def __init__(self, setup: TrainingSetup, run: Run, state: State | None = None):
        self.setup, self.run = setup, run
        self.state = state or State()
        self.train = setup.cfg["train"]
        self.schedule: Callable[[float], float] = instantiate.partial("schedule", setup.cfg["schedule"], "progress")
        self.strategy = make_strategy(setup)
        self.saver = Saver(setup, run, self.strategy)
        self.deferred = can_defer_check(setup, self.strategy)
        self.snapshot = nonfinite.StepSnapshot(setup.method, setup.optimizer, self.deferred)
        self.budget = Budget(setup, run, self.state) if setup.steps is None else None
        self.unreadable = 0  # unreadable samples in events.jsonl so far
        self.meter = Meter()
        self.flags = StepFlags()
        self.stop_signal = StopSignal()
        self.start = time.perf_counter() - self.state.seconds

    # ------------------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train to the last step. Interrupted or Stopped where a signal arrived, after everything was saved."""
        setup, state = self.setup, self.state
        setup.method.train()
        with stop_signals(setup.catch_signals) as self.stop_signal:
            if setup.runtime.compile is None:
                seconds = None if self.budget is None else self.budget.seconds
                choose_compilation(setup, self.run, state, self.strategy, self.measured_step, seconds)
            horizon = state.plan = state.plan or self.make_horizon()
            per_epoch = setup.loader.steps_per_epoch
            eval_every = evaluation_interval(setup, horizon.total)
            log_every = setup.cfg["logger"]["log_every"]
            display = progress.TrainingDisplay(horizon.total, horizon.total / per_epoch, state.step)
            stream: BatchIterator | None = None
            try:
                if state.step == 0 or state.step >= horizon.total:  # the latter only writes the encoder again
                    self.save(required=True)
                if self.evaluation_due(horizon, eval_every):  # of the step whose checkpoint was resumed
                    self.evaluate()
                stream = setup.loader.stream(state.step)
                self.meter, shown = Meter.from_checkpoint(state.meters), {}
                setup.loader.wait  # noqa: B018 - reading it resets the waiting time
                while state.step < horizon.total:
                    self.step(stream, horizon, self.meter)
                    state.step += 1
                    state.seconds = time.perf_counter() - self.start
                    end_of_epoch = state.step % per_epoch == 0
                    last = state.step >= horizon.total

                    # log
                    if end_of_epoch or last or state.step % log_every == 0:
                        shown = self.log(horizon)
                        check_collapse(self.run, state, shown.get("spread"), self.train["on_collapse"], display.note)
                        self.meter = Meter()
                        if self.budget is not None and not last:
                            self.budget.adjust(horizon)
                            display.total, display.epochs = horizon.total, horizon.total / per_epoch
                    display.update(state.step, state.step / per_epoch, shown, end_of_epoch)

                    # save
                    if last or self.flags.stop or self.flags.save:
                        self.save(required=last or bool(self.flags.stop))
                    if self.flags.stop and not last:
                        self.stop(self.flags.stop)

                    # evaluate
                    if self.evaluation_due(horizon, eval_every):
                        self.evaluate()
                        self.meter.start = time.perf_counter()
            finally:
                self.saver.close()
                display.close()
                if stream is not None:
                    stream.close()

    def step(self, stream: BatchIterator, horizon: Horizon, meter: Meter) -> None:
        """One optimizer step over `train.accumulate` micro-batches. A step that is not finite is undone."""
        setup, state, accumulate = self.setup, self.state, self.train["accumulate"]
        factor = self.schedule(horizon.progress(state.step))
        for group in setup.optimizer.param_groups:
            group["lr"] = setup.lr * group.get("factor", 1.0) * (1.0 if group.get("fixed_lr") else factor)
        setup.runtime.seed_step(setup.cfg["seed"], state.step, rank())
        setup.optimizer.zero_grad(set_to_none=True)
        compilation.mark_step(setup.runtime.compile)
        self.snapshot.save()
        loss = torch.zeros((), device=setup.runtime.device)
        for i in range(accumulate):
            batch = next(stream)
            with self.strategy.gradient_sync(last=i == accumulate - 1):
                with setup.runtime.autocast():
                    out = self.strategy.model(batch)
                (out["loss"] / accumulate).backward()
            meter.add(out, len(batch))
            loss = loss + out["loss"].detach()
        loss = loss / accumulate
        norm = self.gradient_norm()
        flags = self.step_flags(loss, norm)
        if self.deferred:  # the update is queued on the GPU before this process reads the flags
            setup.optimizer.found_inf = flags[0]  # type: ignore[attr-defined]
            self.update(horizon, norm)
        stream.prefetch()
        self.flags = StepFlags(*(int(v) for v in flags.tolist()))
        if self.flags.nonfinite:
            self.snapshot.restore()
            nonfinite.skip_step(setup, self.run, state, loss, norm)
            return
        state.skipped_in_a_row = 0
        if not self.deferred:
            self.update(horizon, norm)

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients as one vector, ()."""
        gradients = [p.grad for p in self.setup.method.parameters() if p.grad is not None]
        return full_tensor(torch.nn.utils.get_total_norm(gradients))

    def step_flags(self, loss: Tensor, norm: Tensor) -> Tensor:
        """The maximum of `StepFlags` over all processes, (3,) float on the device. Does not synchronize with the device."""
        local = torch.tensor([0.0, self.stop_signal.number, self.saver.due(self.state.step + 1)], dtype=torch.float32)
        local = local.to(loss.device, non_blocking=True)
        local[0] = ~torch.isfinite(loss.float() + norm)
        return all_reduce_max_(local)

    def update(self, horizon: Horizon, norm: Tensor) -> None:
        """Clip the gradients, step the optimizer, then the method (teachers, queues)."""
        setup = self.setup
        if self.train["clip"] is not None:
            finite = norm.nan_to_num(0.0, 0.0)  # leaves a non-finite gradient as it is, for the report
            torch.nn.utils.clip_grads_with_norm_(setup.method.parameters(), self.train["clip"], finite)
        setup.optimizer.step()
        setup.method.after_step(horizon.progress(self.state.step + 1))

    # ------------------------------------------------------------------------------------------------------ intervals

    def make_horizon(self) -> Horizon:
        """The last step: from `train.steps` or `train.epochs`, or from the budget and the measured speed."""
        if self.budget is None:
            assert self.setup.steps is not None
            return Horizon(self.setup.steps)
        return self.budget.plan(self.measured_step, self.start)

    def measured_step(self, stream: BatchIterator) -> None:
        """A step whose time is measured before the first one."""
        self.step(stream, Horizon(1000), Meter())

    def log(self, horizon: Horizon) -> dict[str, float]:
        """Write a line of metrics.jsonl, and events for newly unreadable samples. Returns the values to display."""
        unreadable = self.setup.loader.gather_bad()
        for name, reason in unreadable[self.unreadable : MAX_UNREADABLE_EVENTS]:
            self.run.event("unreadable", name=name, reason=reason, met=len(unreadable))
        self.unreadable = len(unreadable)
        meter, state, loader = self.meter, self.state, self.setup.loader
        elapsed = max(time.perf_counter() - meter.start, 1e-9)
        means = meter.means()
        rate, wait = world_size() * meter.samples / elapsed, loader.wait / elapsed
        values = {f"train/{k}": v for k, v in means.items()}
        values |= {
            "train/lr": max(g["lr"] for g in self.setup.optimizer.param_groups if not g.get("fixed_lr")),
            "train/samples_per_s": rate,
            "train/data_wait": wait,
            "train/progress": horizon.progress(state.step),
        }
        self.run.log(state.step, state.step / loader.steps_per_epoch, state.seconds, values)
        shown = {k: means[k] for k in ("loss", "spread") if k in means}
        return shown | {"samples_per_s": rate, "data_wait": wait}

    def evaluation_due(self, horizon: Horizon, every: int) -> bool:
        """Whether this step is evaluated: a function of the step, so that a resumed run repeats an interrupted evaluation."""
        step, per_epoch = self.state.step, self.setup.loader.steps_per_epoch
        end_of_interval = every and step % per_epoch == 0 and step // per_epoch % every == 0
        return bool(every and step and (step >= horizon.total or end_of_interval))

    def evaluate(self) -> None:
        """Log the online evaluation."""
        setup, state = self.setup, self.state
        with compilation.force_eager(setup.runtime.compile):
            metrics = evaluate_online(setup, self.strategy.eval_backbone())
        setup.method.train()
        values = {f"eval/{k}": v for k, v in metrics.items()}
        self.run.log(state.step, state.step / setup.loader.steps_per_epoch, state.seconds, values)
        self.run.set_status(step=state.step, online=metrics)

    def save(self, required: bool = False) -> None:
        self.saver.save(self.state, self.meter.as_dict(), required)

    def stop(self, number: int) -> None:
        """End training on a signal that one of the processes received. Everything is saved."""
        name = signal.Signals(number).name
        self.run.event("signal", name=name, step=self.state.step)
        message = f"stopped by {name} at step {self.state.step:,}; saved"
        hint = resume_command(self.run.path)
        raise Interrupted(message, hint) if name == "SIGINT" else Stopped(message, hint)


def can_defer_check(setup: TrainingSetup, strategy: SingleProcess) -> bool:
    """Whether the update may be queued on the GPU before the check for non-finite values is read (decision 10)."""
    on_gpu = setup.runtime.device.type == "cuda"
    return on_gpu and not strategy.sharded and optim.supports_found_inf(setup.optimizer)
