"""When a checkpoint is due, what goes into it, and what happens when it cannot be written."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sslcli.config.duration import parse_duration
from sslcli.console import detail, warn
from sslcli.errors import StorageError, TrainingError, command
from sslcli.nn.dist import all_gather_object, rank
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.training.setup import Job, save_encoder
from sslcli.training.state import State, identity, split_ema
from sslcli.training.strategy import Whole

MAX_FAILURES = 3


class Saver:
    """The checkpoints of a run. On several processes all of them ask, and rank 0 writes.

    With `train.save_in_background` the tensors are copied to the processor's memory and written by a thread, one checkpoint
    at a time, while training goes on; what went wrong comes out at the next one."""

    def __init__(self, job: Job, run: Run, spread: Whole):
        self.job, self.run, self.spread = job, run, spread
        every = job.cfg["train"]["save_every"]
        self.steps = every if isinstance(every, int) else None
        self.seconds = math.inf if self.steps else parse_duration(every, "train.save_every")
        self.saved_at = -1
        self.saved_when = time.monotonic()
        self.failures = 0
        self.thread = ThreadPoolExecutor(1) if job.cfg["train"]["save_in_background"] and rank() == 0 else None
        self.pending: tuple[int, Future[None]] | None = None

    def due(self, step: int) -> bool:
        if self.steps:
            return step % self.steps == 0
        return rank() == 0 and time.monotonic() - self.saved_when >= self.seconds

    def save(self, state: State, meter: dict[str, Any], must: bool = False) -> None:
        """The encoder and a checkpoint. A failure is told and training goes on, unless it `must` be or is the third in a row."""
        self.settle()
        if self.saved_at == state.step:
            return
        self.saved_when = time.monotonic()
        weights = self.spread.weights()
        if not all(is_finite(v) for v in weights.values()):
            message = f"the weights are not finite at step {state.step:,}: no checkpoint of them"
            self.run.event("not saved", step=state.step, reason=message)
            if must:
                raise TrainingError(
                    message, f"`{command('resume', self.run.path)}` starts from the last good checkpoint"
                )
            warn(message)
            return
        meters, (slots, numbers) = all_gather_object(meter), self.spread.optimizer()
        self.saved_at = state.step
        if rank() > 0:  # the same weights everywhere: rank 0 writes them
            return
        tensors = {**split_ema(self.job.method, weights), "optimizer": slots}
        if self.thread is not None and not must:
            tensors = {name: {k: v.detach().to("cpu", copy=True) for k, v in t.items()} for name, t in tensors.items()}
            weights = {**tensors["model"], **tensors["ema"]}
        done: Future[None] = Future()
        try:
            content = self.content(state, meters, numbers)
            if self.thread is not None and not must:
                self.pending = state.step, self.thread.submit(self.write, state.step, weights, tensors, content)
                return
            self.write(state.step, weights, tensors, content)
            done.set_result(None)
        except (StorageError, OSError) as e:
            done.set_exception(e)
        self.pending = state.step, done
        self.settle(must)

    def content(self, state: State, meters: list[dict[str, Any]], numbers: dict[str, Any]) -> dict[str, Any]:
        per_epoch = self.job.loader.steps_per_epoch
        return {
            **asdict(state),
            "meters": meters,
            "epoch": state.step // per_epoch,
            "cursor": state.step % per_epoch,
            "metrics_bytes": self.run.metrics_offset(),
            "optimizer_numbers": numbers,
            **identity(self.job),
        }

    def write(self, step: int, weights: dict[str, Tensor], tensors: dict[str, dict[str, Tensor]], content: Any) -> None:
        """The encoder first: a run whose last checkpoint is written lacks nothing. Before the first step there is no encoder, only
        an untrained network: a checkpoint of it, and nothing that an evaluation would take for a result."""
        began = time.monotonic()
        if step > 0:
            save_encoder(self.run, self.job, step, self.spread.of_backbone(weights))
        folder = self.run.path / "checkpoints"
        checkpoint.save(folder, step, tensors, content, keep=self.job.cfg["train"]["keep"])
        detail(f"checkpoint of step {step:,} in {time.monotonic() - began:.2f} s")

    def settle(self, must: bool = False) -> None:
        """Waits for the checkpoint in flight, and says how it went."""
        if self.pending is None:
            return
        (step, written), self.pending = self.pending, None
        try:
            written.result()
        except (StorageError, OSError) as e:
            failure = e if isinstance(e, StorageError) else StorageError(f"cannot save: {e.strerror or e}")
            self.failures += 1
            self.saved_at = -1
            self.run.event("save failed", step=step, reason=failure.message)
            if must or self.failures >= MAX_FAILURES:
                failure.hint = (
                    f"make room, then {command('resume', self.run.path)}"
                    if self.run.path.is_dir()
                    else "the run folder was moved or removed during training; if it was moved: sslcli resume NEW_PATH"
                )
                raise failure from None
            warn(f"{failure.message}; training goes on, the checkpoint before is kept")
            return
        self.failures = 0
        self.run.set_status(step=step)

    def close(self) -> None:
        if self.thread is not None:
            self.thread.shutdown()


def is_finite(x: Tensor) -> bool:
    """Whether all entries are numbers: NaN and infinities show in the extremes, found sixty times as fast as by `isfinite`."""
    return x.numel() == 0 or bool(torch.isfinite(torch.stack(x.aminmax())).all())
