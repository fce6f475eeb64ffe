"""The only training loop. Read it aloud: set the rate, take a batch, step, once in a while log, measure, save, stop."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sslcli import build, checkpoint, compose
from sslcli.console import Progress, detail, human_time, warn
from sslcli.errors import Interrupted, SslError, Stopped, StorageError, TrainingError
from sslcli.job import Job, save_encoder
from sslcli.run import Run
from sslcli.runtime import StopSignal, stop_signals
from sslcli.state import Plan, State, identity, split_ema

LOW_SPREAD = 0.1  # of the embedding; 1 is ideal, 0 a collapsed one
PATIENCE = 0.25  # of the run, for a spread that was never higher: heads without batch norm start nearly constant
MAX_SKIPPED_IN_A_ROW = 5  # non-finite steps
MAX_SAVE_FAILURES = 3
EVALS_A_RUN = 10  # with train.eval_every=auto
MEASURE_SECONDS = 3.0  # at most, to plan a budget


class Meter:
    """Means since the last line of metrics, and throughput. Values stay on the device until looked at.

    The sums are part of a checkpoint: a line that spans a resume is the line of an unbroken run."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.sums: dict[str, Tensor | float] = defaultdict(float, sums or {})
        self.count = count
        self.samples = 0
        self.began = time.perf_counter()

    def add(self, values: dict[str, Tensor], samples: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach()
        self.count += 1
        self.samples += samples

    def means(self) -> dict[str, float]:
        return {k: float(v) / max(1, self.count) for k, v in self.sums.items()}

    def as_dict(self) -> dict[str, Any]:
        return {"sums": {k: float(v) for k, v in self.sums.items()}, "count": self.count}


class Trainer:
    """One run of one job in this process."""

    def __init__(self, job: Job, run: Run, state: State | None = None):
        self.job, self.run = job, run
        self.state = state or State()
        self.train = job.cfg["train"]
        self.schedule: Callable[[float], float] = build.partial("schedule", job.cfg["schedule"], "progress")
        self.names = checkpoint.parameter_names(job.method)
        self.model: Any = torch.compile(job.method) if job.runtime.compile else job.method
        self.save_steps = self.train["save_every"] if isinstance(self.train["save_every"], int) else None
        self.save_seconds = (
            math.inf if self.save_steps else compose.seconds(self.train["save_every"], "train.save_every")
        )
        self.save_failures = 0
        self.skipped_in_a_row = 0
        self.meter = Meter()
        self.saved_at = -1
        self.saved_when = time.monotonic()
        self.began = time.perf_counter() - self.state.seconds

    # ----------------------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        job, state = self.job, self.state
        job.method.train()
        with stop_signals() as stop:
            plan = state.plan = state.plan or self.plan()
            per_epoch = job.loader.steps_per_epoch
            eval_every = self.eval_every(plan, per_epoch)
            log_every = job.cfg["logger"]["log_every"]
            progress = Progress(plan.total, plan.total / per_epoch, state.step)
            stream: Any = None
            try:
                if state.step == 0:
                    self.save(first=True)
                stream = job.loader.stream(state.step)
                self.meter, shown = Meter(**state.meter), {}
                job.loader.wait  # noqa: B018 - reading it starts the count anew
                while state.step < plan.total:
                    self.step(stream, plan, self.meter)
                    state.step += 1
                    state.seconds = time.perf_counter() - self.began
                    end_of_epoch = state.step % per_epoch == 0
                    last = state.step >= plan.total

                    # once in a while: log
                    if end_of_epoch or last or state.step % log_every == 0:
                        shown = self.log(plan)
                        self.guard(shown, progress.note)
                        self.meter = Meter()
                        if self.train["budget"] is not None and not last:
                            self.keep_to_budget(plan)
                            progress.total, progress.epochs = plan.total, plan.total / per_epoch
                    progress.update(state.step, state.step / per_epoch, shown, end_of_epoch)

                    # once in a while: measure
                    if eval_every and (last or (end_of_epoch and state.step // per_epoch % eval_every == 0)):
                        self.evaluate(stop)
                        self.meter.began = time.perf_counter()

                    # once in a while: save
                    if last or stop or self.save_due():
                        self.save()
                    if stop and not last:
                        self.leave(stop)
            finally:
                progress.close()
                if stream is not None:
                    stream.close()

    def step(self, stream: Any, plan: Plan, meter: Meter) -> None:
        """One optimizer step: `accumulate` micro-batches, one update."""
        job, state, accumulate = self.job, self.state, self.train["accumulate"]
        factor = self.schedule(plan.progress(state.step))
        for group in job.optimizer.param_groups:
            group["lr"] = job.lr * (1.0 if group.get("fixed_lr") else factor)
        job.runtime.seed_step(job.cfg["seed"], state.step)
        job.optimizer.zero_grad(set_to_none=True)
        for _ in range(accumulate):
            batch = next(stream)
            with job.runtime.autocast():
                out = self.model(batch)
            (out["loss"] / accumulate).backward()
            meter.add(out, len(batch))
        if self.finite(out["loss"]):
            job.optimizer.step()
            job.method.after_step(plan.progress(state.step + 1))

    def finite(self, loss: Tensor) -> bool:
        """Before the update: the loss and the gradient are numbers. Else the step is skipped and counted; too many end the run."""
        gradients = [p.grad for p in self.job.method.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if bool(torch.isfinite(loss.detach().float() + norm)):
            if self.train["clip"] is not None:
                torch.nn.utils.clip_grads_with_norm_(self.job.method.parameters(), self.train["clip"], norm)
            self.skipped_in_a_row = 0
            return True
        state = self.state
        state.skipped += 1
        self.skipped_in_a_row += 1
        what = "loss" if not bool(torch.isfinite(loss)) else "gradient"
        self.run.event("non-finite", step=state.step, what=what, loss=float(loss), gradient_norm=float(norm))
        if self.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW or (state.step > 100 and state.skipped > 0.01 * state.step):
            lr = self.job.optimizer.param_groups[0]["lr"]
            raise TrainingError(
                f"the {what} is not finite at step {state.step:,} ({state.skipped} steps skipped; lr {lr:.3g}, "
                f"{self.job.runtime.precision})",
                f"likely causes: the learning rate is too high (try optimizer.lr={self.job.cfg['optimizer']['lr'] / 10:.3g}), "
                f"no gradient clipping (train.clip=1)"
                + (", or bf16 (device.precision=fp32)" if self.job.runtime.precision == "bf16" else "")
                + f"; the last good checkpoint is kept, `sslcli resume {self.run.path}` starts from it",
            )
        return False

    # -------------------------------------------------------------------------------------------------------- how long

    def plan(self) -> Plan:
        if self.job.steps is not None:
            return Plan(self.job.steps)
        budget = compose.seconds(self.train["budget"], "train.budget")
        each = self.measure(min(MEASURE_SECONDS, budget / 10))
        steps = max(1, int(budget / each))
        self.run.event("planned", budget=budget, seconds_a_step=each, steps=steps)
        return Plan(steps)

    def measure(self, at_most: float) -> float:
        """Seconds a step, on copies, so that the run itself has not begun."""
        job = self.job
        method, optimizer, model = job.method, job.optimizer, self.model
        try:
            job.method = copy.deepcopy(method)
            twin = dict(zip(method.parameters(), job.method.parameters(), strict=True))
            groups = [{**g, "params": [twin[p] for p in g["params"]]} for g in optimizer.param_groups]
            job.optimizer = build.build("optimizer", {**job.cfg["optimizer"], "lr": job.lr}, groups)
            self.model = torch.compile(job.method) if job.runtime.compile else job.method
            stream: Any = job.loader.stream(0)
            times: list[float] = []
            began = time.perf_counter()
            while len(times) < 3 or (time.perf_counter() - began < at_most and len(times) < 50):
                t = time.perf_counter()
                self.step(stream, Plan(1000), Meter())
                if job.runtime.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - t)
            stream.close()
            return sorted(times)[len(times) // 2]
        finally:
            job.method, job.optimizer, self.model = method, optimizer, model
            self.state.skipped = self.skipped_in_a_row = 0

    def keep_to_budget(self, plan: Plan) -> None:
        """Draws the rest of the schedule anew when the end would miss the budget by more than 2 %."""
        budget, state = compose.seconds(self.train["budget"], "train.budget"), self.state
        each = state.seconds / state.step
        end = state.seconds + each * (plan.total - state.step)
        if abs(end - budget) > 0.02 * budget:
            plan.replan(state.step, state.step + int((budget - state.seconds) / each))

    def eval_every(self, plan: Plan, per_epoch: int) -> int:
        wanted = self.train["eval_every"]
        return max(1, plan.total // per_epoch // EVALS_A_RUN) if wanted == "auto" else int(wanted)

    # ------------------------------------------------------------------------------------------------- once in a while

    def log(self, plan: Plan) -> dict[str, float]:
        """A line of metrics.jsonl; returns what is worth showing."""
        meter, state = self.meter, self.state
        elapsed = max(time.perf_counter() - meter.began, 1e-9)
        means = meter.means()
        rate, wait = meter.samples / elapsed, self.job.loader.wait / elapsed
        values = {f"train/{k}": v for k, v in means.items()}
        lr = max(g["lr"] for g in self.job.optimizer.param_groups if not g.get("fixed_lr"))
        values |= {
            "train/lr": lr,
            "train/samples_per_s": rate,
            "train/data_wait": wait,
            "train/progress": plan.progress(state.step),
        }
        self.run.log(state.step, state.step / self.job.loader.steps_per_epoch, state.seconds, values)
        shown = {k: means[k] for k in ("loss", "spread") if k in means}
        return shown | {"samples_per_s": rate, "data_wait": wait}

    def guard(self, shown: dict[str, float], note: Callable[[str], None]) -> None:
        """Collapse: the embeddings of different samples become one vector."""
        spread, state = shown.get("spread"), self.state
        if spread is None:
            return
        state.best_spread = max(state.best_spread, spread)
        fell = state.best_spread > 2 * LOW_SPREAD or state.plan is None or state.plan.progress(state.step) > PATIENCE
        state.low_spread = state.low_spread + 1 if spread < LOW_SPREAD and fell else 0
        if state.low_spread != 2:
            return
        message = f"the embeddings are collapsing: spread {spread:.3f} at step {state.step:,} (1 is ideal, 0 one single point)"
        hint = "try a lower optimizer.lr, a larger train.batch_size, or a method with negatives (method=simclr)"
        self.run.event("collapse", step=state.step, spread=spread)
        if self.train["on_collapse"] == "stop":
            raise TrainingError(message, hint)
        note(f"warning: {message}\nhint: {hint}; train.on_collapse=stop ends such a run")

    def evaluate(self, stop: StopSignal) -> None:
        """Online numbers, inside the training split; the test split is not touched."""
        if stop:
            return
        job, state = self.job, self.state
        numbers = online(job)
        job.method.train()
        values = {f"eval/{k}": v for k, v in numbers.items()}
        self.run.log(state.step, state.step / job.loader.steps_per_epoch, state.seconds, values)
        self.run.set_status(step=state.step, online=numbers)

    def save_due(self) -> bool:
        if self.save_steps:
            return self.state.step % self.save_steps == 0
        return time.monotonic() - self.saved_when >= self.save_seconds

    def save(self, first: bool = False) -> None:
        """A checkpoint and the encoder. A failure is told and training goes on; the third in a row ends the run."""
        if self.saved_at == self.state.step:
            return
        state, job = self.state, self.job
        self.saved_when = time.monotonic()
        model = job.method.state_dict()
        if not all(bool(torch.isfinite(v).all()) for v in model.values() if v.is_floating_point()):
            self.run.event("not saved", step=state.step, reason="non-finite weights")
            return
        slots, numbers = checkpoint.optimizer_tensors(job.optimizer, self.names)
        content = {
            **asdict(state),
            "meter": self.meter.as_dict(),
            "epoch": state.step // job.loader.steps_per_epoch,
            "cursor": state.step % job.loader.steps_per_epoch,
            "metrics_bytes": self.run.metrics_offset(),
            "optimizer_numbers": numbers,
            **identity(job),
        }
        try:
            tensors = {**split_ema(job.method, model), "optimizer": slots}
            checkpoint.save(self.run.path / "checkpoints", state.step, tensors, content, keep=self.train["keep"])
            save_encoder(self.run, job, state.step)
        except (StorageError, OSError) as e:
            self.save_failures += 1
            self.run_event_quietly("save failed", step=state.step, reason=str(e))
            if first or self.save_failures >= MAX_SAVE_FAILURES:
                raise e if isinstance(e, StorageError) else StorageError(f"cannot save: {e}") from e
            return
        self.save_failures = 0
        self.saved_at = state.step
        detail(f"checkpoint of step {state.step:,} in {time.monotonic() - self.saved_when:.2f} s")
        self.run.set_status(step=state.step)

    def run_event_quietly(self, kind: str, **values: Any) -> None:
        try:
            self.run.event(kind, **values)
        except OSError:  # the disk is full: that is what we are trying to say
            warn(f"{kind}: {values}")

    def leave(self, stop: StopSignal) -> None:
        """A signal came: everything is saved."""
        assert stop.received is not None
        name = stop.received.name
        self.run.event("signal", name=name, step=self.state.step)
        done = f"stopped by {name} at step {self.state.step:,}; saved"
        hint = f"sslcli resume {self.run.path}"
        raise Interrupted(done, hint) if name == "SIGINT" else Stopped(done, hint)


def online(job: Job) -> dict[str, float]:
    """The online evaluator of the configuration, on the method's evaluation backbone."""
    machine = job.runtime
    return build.build(
        "evaluator",
        job.cfg["evaluator"],
        job.method.eval_backbone,
        job.dataset,
        device=machine.device,
        workers=machine.workers,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
    )


# ------------------------------------------------------------------------------------------------------------------- run it


def run_job(job: Job, run: Run, state: State | None = None) -> State:
    """Trains to the end, and leaves the run's status true whatever happens."""
    trainer = Trainer(job, run, state)
    try:
        trainer.fit()
    except (Interrupted, Stopped):
        run.set_status("interrupted", step=trainer.state.step)
        raise
    except torch.OutOfMemoryError as e:
        run.set_status("failed", step=trainer.state.step, error="out of memory")
        raise out_of_memory(job) from e
    except SslError as e:
        run.set_status("failed", step=trainer.state.step, error=e.message)
        raise
    except BaseException as e:
        run.set_status("failed", step=trainer.state.step, error=f"{type(e).__name__}: {e}")
        raise
    took = human_time(trainer.state.seconds)
    run.set_status(
        "done",
        step=trainer.state.step,
        seconds=round(trainer.state.seconds, 1),
        peak_memory_mb=round(job.runtime.peak_memory_mb()),
    )
    run.write_log(f"done: {trainer.state.step} steps in {took}")
    return trainer.state


def out_of_memory(job: Job) -> SslError:
    from sslcli.errors import MachineError

    batch, accumulate = job.cfg["train"]["batch_size"], job.cfg["train"]["accumulate"]
    return MachineError(
        f"out of memory on {job.runtime.device} with {batch // accumulate} samples at a time "
        f"(peak {job.runtime.peak_memory_mb():,.0f} MB)",
        f"the same batch in smaller portions: train.accumulate={accumulate * 2}",
    )
