"""The only training loop. Read it aloud: set the rate, take a batch, step, once in a while log, measure, save, stop."""

from __future__ import annotations

import contextlib
import copy
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslcli import optim
from sslcli.config import instantiate
from sslcli.config.duration import parse_duration
from sslcli.console import human_time, plural, say, warn
from sslcli.data.loading.prefetch import BatchIterator
from sslcli.errors import Interrupted, Stopped, TrainingError, command
from sslcli.nn.dist import (
    all_gather_object,
    all_reduce_max,
    all_reduce_max_,
    all_reduce_mean,
    broadcast_from_rank0,
    rank,
    world_size,
)
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.runtime import compilation, progress, threads
from sslcli.runtime.signals import StopSignal, stop_signals
from sslcli.training import nonfinite
from sslcli.training.saver import Saver
from sslcli.training.setup import Job
from sslcli.training.state import Plan, State
from sslcli.training.strategy import Whole, spread

LOW_SPREAD = 0.1  # of the embedding; 1 is ideal, 0 a collapsed one
DEAD_SPREAD = 1e-3  # no start is as flat as that: no patience
PATIENCE = 0.25  # of the run, for a spread that was never higher: heads without batch norm start nearly constant
MAX_SKIPPED_IN_A_ROW = 5  # non-finite steps
MAX_UNREADABLE_TOLD = 20  # samples named in events.jsonl
EVALS_A_RUN = 10  # at most, with train.eval_every=auto
EVAL_SHARE = 0.05  # of a run's time, likewise
FEWEST_STEPS, FEWEST_EPOCHS = 100, 3  # a budget that buys less is warned of
WORTH_STEPS = 1000  # a budget that buys less is compared with so many
MEASURE_SECONDS = 3.0  # at most, to plan a budget


class Meter:
    """Means since the last line of metrics, and throughput. Values stay on the device until looked at.

    The sums are part of a checkpoint: a line that spans a resume is the line of an unbroken run."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.sums: dict[str, Tensor | float] = defaultdict(float, sums or {})
        self.count = count
        self.samples = 0
        self.began = time.perf_counter()

    @classmethod
    def of(cls, saved: list[dict[str, Any]]) -> Meter:
        """This process's sums out of a checkpoint; of a run on another number of processes, their mean."""
        if len(saved) == world_size():
            return cls(**saved[rank()])
        if not saved:
            return cls()
        sums = {k: sum(m["sums"][k] for m in saved) / len(saved) for k in saved[0]["sums"]}
        return cls(sums, saved[0]["count"])

    def add(self, values: dict[str, Tensor], samples: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach()
        self.count += 1
        self.samples += samples

    def means(self) -> dict[str, float]:
        return {k: float(v) / max(1, self.count) for k, v in self.sums.items()}

    def as_dict(self) -> dict[str, Any]:
        return {"sums": {k: float(v) for k, v in self.sums.items()}, "count": self.count}


class Told(NamedTuple):
    """What one of the processes met in a step, and all act on."""

    bad: int = 0  # a loss or gradient that is not finite
    stop: int = 0  # the number of a signal
    save: int = 0  # a checkpoint is due


class Trainer:
    """One run of one job in this process."""

    def __init__(self, job: Job, run: Run, state: State | None = None):
        self.job, self.run = job, run
        self.state = state or State()
        self.train = job.cfg["train"]
        self.schedule: Callable[[float], float] = instantiate.partial("schedule", job.cfg["schedule"], "progress")
        self.spread = spread(job)
        self.saver = Saver(job, run, self.spread)
        self.ahead = goes_ahead(job, self.spread)
        self.kept = nonfinite.Kept(job.method, job.optimizer, self.ahead)
        self.unreadable = 0  # samples met, as far as they are told
        self.meter = Meter()
        self.told = Told()
        self.stop = StopSignal()
        self.began = time.perf_counter() - self.state.seconds

    # ----------------------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        job, state = self.job, self.state
        job.method.train()
        with stop_signals() as stop:
            self.stop = stop
            plan = state.plan = state.plan or self.plan()
            per_epoch = job.loader.steps_per_epoch
            eval_every = self.eval_every(plan, per_epoch)
            log_every = job.cfg["logger"]["log_every"]
            display = progress.Training(plan.total, plan.total / per_epoch, state.step)
            stream: BatchIterator | None = None
            try:
                if state.step == 0 or state.step >= plan.total:  # the latter: only the encoder is written again
                    self.save(must=True)
                if self.evaluation_due(plan, eval_every):  # a checkpoint stands before the evaluation of its step
                    self.evaluate()
                stream = job.loader.stream(state.step)
                self.meter, shown = Meter.of(state.meters), {}
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
                        self.guard(shown, display.note)
                        self.meter = Meter()
                        if self.train["budget"] is not None and not last:
                            self.keep_to_budget(plan)
                            display.total, display.epochs = plan.total, plan.total / per_epoch
                    display.update(state.step, state.step / per_epoch, shown, end_of_epoch)

                    # once in a while: save
                    if last or self.told.stop or self.told.save:
                        self.save(must=last or bool(self.told.stop))
                    if self.told.stop and not last:
                        self.leave(self.told.stop)

                    # once in a while: measure
                    if self.evaluation_due(plan, eval_every):
                        self.evaluate()
                        self.meter.began = time.perf_counter()
            finally:
                self.saver.close()
                display.close()
                if stream is not None:
                    stream.close()

    def step(self, stream: BatchIterator, plan: Plan, meter: Meter) -> None:
        """One optimizer step: `accumulate` micro-batches, one update."""
        job, state, accumulate = self.job, self.state, self.train["accumulate"]
        factor = self.schedule(plan.progress(state.step))
        for group in job.optimizer.param_groups:
            group["lr"] = job.lr * (1.0 if group.get("fixed_lr") else factor)
        job.runtime.seed_step(job.cfg["seed"], state.step, rank())
        job.optimizer.zero_grad(set_to_none=True)
        compilation.new_step(job.runtime.compile)
        self.kept.keep()
        loss = torch.zeros((), device=job.runtime.device)
        for i in range(accumulate):
            batch = next(stream)
            with self.spread.averaging(last=i == accumulate - 1):
                with job.runtime.autocast():
                    out = self.spread.model(batch)
                (out["loss"] / accumulate).backward()
            meter.add(out, len(batch))
            loss = loss + out["loss"].detach()
        loss = loss / accumulate
        norm = self.gradient_norm()
        verdict = self.verdict(loss, norm)
        if self.ahead:
            job.optimizer.found_inf = verdict[0]  # type: ignore[attr-defined]
            self.update(plan, norm)
        stream.begin()
        self.told = Told(*(int(v) for v in verdict.tolist()))
        if self.told.bad:
            self.kept.undo()
            self.skip(loss, norm)
            return
        state.skipped_in_a_row = 0
        if not self.ahead:
            self.update(plan, norm)

    def gradient_norm(self) -> Tensor:
        """Of all gradients as one vector."""
        gradients = [p.grad for p in self.job.method.parameters() if p.grad is not None]
        return checkpoint.whole(torch.nn.utils.get_total_norm(gradients))

    def verdict(self, loss: Tensor, norm: Tensor) -> Tensor:
        """What all processes do after this step, as a float tensor in the order of `Told`, on the device: nobody has waited yet."""
        own = torch.tensor([0.0, self.stop.number, self.saver.due(self.state.step + 1)], dtype=torch.float32)
        own = own.to(loss.device, non_blocking=True)
        own[0] = ~torch.isfinite(loss.float() + norm)
        return all_reduce_max_(own)

    def update(self, plan: Plan, norm: Tensor) -> None:
        job = self.job
        if self.train["clip"] is not None:
            finite = norm.nan_to_num(0.0, 0.0)  # a bad gradient stays as it is: it will be looked at
            torch.nn.utils.clip_grads_with_norm_(job.method.parameters(), self.train["clip"], finite)
        job.optimizer.step()
        job.method.after_step(plan.progress(self.state.step + 1))

    def skip(self, loss: Tensor, norm: Tensor) -> None:
        """The step was bad and has left no trace: it is counted and told; too many end the run."""
        state = self.state
        state.skipped += 1
        state.skipped_in_a_row += 1
        what = "loss" if not bool(torch.isfinite(loss)) else "gradient"
        self.run.event("non-finite", step=state.step, what=what, loss=float(loss), gradient_norm=float(norm))
        too_many = state.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW or (
            state.step > 100 and state.skipped > 0.01 * state.step
        )
        if too_many or state.skipped == 1:
            ids = [part for own in all_gather_object(self.job.loader.ids(state.step)) for part in own]
            if rank() == 0:
                nonfinite.dump(self.run, self.job, state.step, ids, loss)
        if too_many:
            lr = self.job.optimizer.param_groups[0]["lr"]
            raise TrainingError(
                f"the {what} is not finite at step {state.step:,} ({state.skipped} steps skipped; lr {lr:.3g}, "
                f"{self.job.runtime.precision})",
                f"likely causes: the learning rate is too high (try optimizer.lr={self.job.cfg['optimizer']['lr'] / 10:.3g}), "
                f"no gradient clipping (train.clip=1)"
                + (", or bf16 (device.precision=fp32)" if self.job.runtime.precision == "bf16" else "")
                + f"; {self.run.path}/debug has the samples and the norms of each layer; the last good checkpoint is kept, "
                f"`{command('resume', self.run.path)}` starts from it",
            )

    # -------------------------------------------------------------------------------------------------------- how long

    def plan(self) -> Plan:
        if self.job.steps is not None:
            return Plan(self.job.steps)
        budget = parse_duration(self.train["budget"], "train.budget")
        times = self.measure(min(MEASURE_SECONDS, budget / 10))
        self.choose_threads(times)
        each = broadcast_from_rank0(times[self.job.runtime.threads])
        left = broadcast_from_rank0(budget - (time.perf_counter() - self.began))
        steps = self.state.step + max(1, int(left / each))
        self.run.event("planned", budget=budget, seconds_a_step=each, steps=steps)
        if rank() == 0:
            told, too_short = bought(self.train["budget"], steps, each, self.job.loader.steps_per_epoch)
            warn(told, too_short) if too_short else say(told)
        return Plan(steps)

    def choose_threads(self, times: dict[int, float]) -> None:
        """Uses the thread count that was faster; one that differs from the default is kept in config.yaml, so that a resumed run
        has the same rounding."""
        count, machine = threads.better(times), self.job.runtime
        if count == machine.threads:
            return
        say(f"device.threads={count}: faster on this machine now ({threads.words(times)})")
        threads.use(machine, count)
        self.job.cfg["device"]["threads"] = count
        self.run.event("threads", chosen=count, seconds_a_step={str(n): t for n, t in times.items()})
        self.run.write_config(self.job.cfg)

    def measure(self, at_most: float) -> dict[int, float]:
        """Seconds a step for each thread count worth comparing. The steps are undone: the run itself has not begun."""
        job, state = self.job, self.state
        tensors = [t.detach() for t in (*job.method.parameters(), *job.method.buffers())]
        kept = [t.clone() for t in tensors]
        slots = copy.deepcopy(job.optimizer.state_dict())
        counters = state.skipped, state.skipped_in_a_row
        with contextlib.closing(job.loader.stream(state.step)) as stream:

            def step() -> None:
                self.step(stream, Plan(1000), Meter())
                if job.runtime.device.type == "cuda":
                    torch.cuda.synchronize()

            def enough(elapsed: float, rounds: int) -> bool:
                return any(all_reduce_max(int(elapsed >= at_most), int(rounds >= 50)))

            counts = threads.candidates(job.cfg["device"]["threads"], job.runtime)
            times = threads.compare(step, counts, at_most, enough)
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        job.optimizer.load_state_dict(slots)
        state.skipped, state.skipped_in_a_row = counters
        return times

    def keep_to_budget(self, plan: Plan) -> None:
        """Draws the rest of the schedule anew when the end would miss the budget by more than 2 %."""
        budget, state = parse_duration(self.train["budget"], "train.budget"), self.state
        state.seconds = broadcast_from_rank0(state.seconds)
        each = state.seconds / state.step
        end = state.seconds + each * (plan.total - state.step)
        if abs(end - budget) > 0.02 * budget:
            plan.replan(state.step, state.step + int((budget - state.seconds) / each))

    def eval_every(self, plan: Plan, per_epoch: int) -> int:
        wanted = self.train["eval_every"]
        if wanted != "auto":
            return int(wanted)
        # A sample costs about six times as much to train on (two views, forward and backward) as to embed.
        evaluator, n = self.job.cfg["evaluator"], len(self.job.dataset.train)
        embedded = min(n, evaluator.get("bank", n) + evaluator.get("queries", n))
        affordable = int(EVAL_SHARE * 6 * plan.total * self.job.loader.batch_size / embedded)
        return max(1, plan.total // per_epoch // min(EVALS_A_RUN, max(1, affordable)))

    # ------------------------------------------------------------------------------------------------- once in a while

    def log(self, plan: Plan) -> dict[str, float]:
        """A line of metrics.jsonl, and what could not be read since the last; returns what is worth showing."""
        unreadable = self.job.loader.share_bad()
        for name, reason in unreadable[self.unreadable : MAX_UNREADABLE_TOLD]:
            self.run.event("unreadable", name=name, reason=reason, met=len(unreadable))
        self.unreadable = len(unreadable)
        meter, state = self.meter, self.state
        elapsed = max(time.perf_counter() - meter.began, 1e-9)
        means = self.all_means()
        rate, wait = world_size() * meter.samples / elapsed, self.job.loader.wait / elapsed
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

    def all_means(self) -> dict[str, float]:
        """The meter's means, over all processes."""
        own = self.meter.means()
        return dict(
            zip(own, all_reduce_mean(torch.tensor(list(own.values()), dtype=torch.float64)).tolist(), strict=True)
        )

    def guard(self, shown: dict[str, float], note: Callable[[str], None]) -> None:
        """Collapse: the embeddings of different samples become one vector."""
        spread, state = shown.get("spread"), self.state
        if spread is None:
            return
        state.best_spread = max(state.best_spread, spread)
        fell = state.best_spread > 2 * LOW_SPREAD or state.plan is None or state.plan.progress(state.step) > PATIENCE
        state.low_spread = state.low_spread + 1 if spread < (LOW_SPREAD if fell else DEAD_SPREAD) else 0
        if state.low_spread != 2:
            return
        message = f"the embeddings are collapsing: spread {spread:.3f} at step {state.step:,} (1 is ideal, 0 one single point)"
        hint = "try a lower optimizer.lr, a larger train.batch_size, or a method with negatives (method=simclr)"
        self.run.event("collapse", step=state.step, spread=spread)
        if self.train["on_collapse"] == "stop":
            raise TrainingError(message, hint)
        note(f"warning: {message}\nhint: {hint}; train.on_collapse=stop ends such a run")

    def evaluation_due(self, plan: Plan, every: int) -> bool:
        """A function of the step, so that a run that was interrupted before or in an evaluation makes it when it goes on."""
        step, per_epoch = self.state.step, self.job.loader.steps_per_epoch
        return bool(
            every and step and (step >= plan.total or (step % per_epoch == 0 and step // per_epoch % every == 0))
        )

    def evaluate(self) -> None:
        """Online numbers, inside the training split; the test split is not touched."""
        job, state = self.job, self.state
        with compilation.as_written(job.runtime.compile):
            numbers = online(job, self.spread.eval_backbone())
        job.method.train()
        values = {f"eval/{k}": v for k, v in numbers.items()}
        self.run.log(state.step, state.step / job.loader.steps_per_epoch, state.seconds, values)
        self.run.set_status(step=state.step, online=numbers)

    def save(self, must: bool = False) -> None:
        self.saver.save(self.state, self.meter.as_dict(), must)

    def leave(self, number: int) -> None:
        """A signal came, to one of us: everything is saved."""
        name = signal.Signals(number).name
        self.run.event("signal", name=name, step=self.state.step)
        done = f"stopped by {name} at step {self.state.step:,}; saved"
        hint = command("resume", self.run.path)
        raise Interrupted(done, hint) if name == "SIGINT" else Stopped(done, hint)


def bought(budget: Any, steps: int, each: float, per_epoch: int) -> tuple[str, str]:
    """What a budget buys at `each` seconds a step, in words; and where that is too little to learn from, what to do."""
    epochs = steps / per_epoch
    about = f"train.budget={budget}: about {plural(steps, 'step')}, {epochs:.3g} epochs, at {each:.2g} s a step"
    if steps < WORTH_STEPS:
        about += f"; {WORTH_STEPS:,} steps would take {human_time(WORTH_STEPS * each)}"
    if steps >= FEWEST_STEPS and epochs >= FEWEST_EPOCHS:
        return about, ""
    enough = max(FEWEST_STEPS, FEWEST_EPOCHS * per_epoch)
    longer = f"train.budget={human_time(max(1, enough * each))} is {enough:,} steps"
    return (
        f"{about}: too few to learn much",
        f"{longer}; smaller images (dataset.image_size), a smaller backbone or a smaller train.batch_size make steps faster",
    )


def goes_ahead(job: Job, spread: Whole) -> bool:
    """Whether a step is finished on the device before this process knows whether it is good: decision 10."""
    return job.runtime.device.type == "cuda" and not spread.sharded and optim.heeds_verdict(job.optimizer)


def online(job: Job, backbone: nn.Module) -> dict[str, float]:
    """The online evaluator of the configuration."""
    machine = job.runtime
    return instantiate.build(
        "evaluator",
        job.cfg["evaluator"],
        backbone,
        job.dataset,
        device=machine.device,
        workers=machine.workers,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
    )
