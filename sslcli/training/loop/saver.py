"""Write checkpoints and the encoder of a run: when they are due, what they hold, and what happens when writing fails."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sslcli import builders
from sslcli.config.checks import parse_duration
from sslcli.console import detail, warn
from sslcli.data.preprocess import preprocessor_of
from sslcli.errors import StorageError, TrainingError
from sslcli.nn.dist import all_gather_object, rank
from sslcli.runs import Record, checkpoint, records
from sslcli.runs.encoder import write_encoder
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run
from sslcli.training.loop.strategy import SingleProcess
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import State, execution, split_ema

MAX_FAILURES = 3


class Saver:
    """The checkpoints of a run. Every process calls it, and rank 0 writes.

    With `train.save_in_background` the tensors are copied to CPU memory and a thread writes them, one checkpoint at a time, while
    training continues. A failure of that thread is handled at the next checkpoint."""

    def __init__(self, setup: TrainingSetup, run: Run, strategy: SingleProcess):
        self.setup, self.run, self.strategy = setup, run, strategy
        every = setup.cfg["train"]["save_every"]
        self.steps = every if isinstance(every, int) else None
        self.seconds = math.inf if self.steps else parse_duration(every, "train.save_every")
        self.saved_step = -1
        self.saved_time = time.monotonic()
        self.failures = 0
        self.thread = ThreadPoolExecutor(1) if setup.cfg["train"]["save_in_background"] and rank() == 0 else None
        self.pending: tuple[int, Future[None]] | None = None

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`: by `train.save_every` in steps, or in seconds as rank 0 measures them."""
        if self.steps:
            return step % self.steps == 0
        return rank() == 0 and time.monotonic() - self.saved_time >= self.seconds

    def save(self, state: State, meter: Record, required: bool = False) -> None:
        """Write the encoder and a checkpoint. A failure is a warning, unless the checkpoint is
        `required` or it is the third failure in a row.

        StorageError where it cannot be written, TrainingError where the weights are not finite."""
        self.settle()
        if self.saved_step == state.step:
            return
        self.saved_time = time.monotonic()
        weights = self.strategy.weights()
        if not all(is_finite(v) for v in weights.values()):
            message = f"the weights are not finite at step {state.step:,}: no checkpoint of them"
            self.run.event("not saved", step=state.step, reason=message)
            if required:
                raise TrainingError(message, f"`{resume_command(self.run.path)}` starts from the last valid checkpoint")
            warn(message)
            return
        meters, (slots, numbers) = all_gather_object(meter), self.strategy.optimizer()
        self.saved_step = state.step
        if rank() > 0:  # all ranks hold the same weights
            return
        tensors = {**split_ema(self.setup.method, weights), "optimizer": slots}
        if self.thread is not None and not required:
            tensors = {name: {k: v.detach().to("cpu", copy=True) for k, v in t.items()} for name, t in tensors.items()}
            weights = {**tensors["model"], **tensors["ema"]}
        done: Future[None] = Future()
        try:
            content = self.content(state, meters, numbers)
            if self.thread is not None and not required:
                self.pending = state.step, self.thread.submit(self.write, state.step, weights, tensors, content)
                return
            self.write(state.step, weights, tensors, content)
            done.set_result(None)
        except (StorageError, OSError) as e:
            done.set_exception(e)
        self.pending = state.step, done
        self.settle(required)

    def content(self, state: State, meters: list[Record], numbers: Record) -> Record:
        per_epoch = self.setup.loader.steps_per_epoch
        return {
            **asdict(state),
            "meters": meters,
            "epoch": state.step // per_epoch,
            "cursor": state.step % per_epoch,
            "metrics_bytes": self.run.metrics_offset(),
            "optimizer_numbers": numbers,
            **execution(self.setup),
        }

    def write(self, step: int, weights: dict[str, Tensor], tensors: dict[str, dict[str, Tensor]], content: Any) -> None:
        """Write the files. The encoder comes first, so that a run with its last checkpoint is complete. At step 0 there is none
        (an evaluation would take the untrained network for a result) unless the run ends there, with the weights of `init`."""
        start = time.monotonic()
        if step > 0 or content["plan"]["total"] == 0:
            save_encoder(self.run, self.setup, step, self.strategy.backbone_weights(weights))
        folder = self.run.path / "checkpoints"
        checkpoint.save(folder, step, tensors, content, keep=self.setup.cfg["train"]["keep"])
        detail(f"checkpoint of step {step:,} in {time.monotonic() - start:.2f} s")

    def settle(self, required: bool = False) -> None:
        """Wait for the checkpoint that is being written, and handle its failure."""
        if self.pending is None:
            return
        (step, written), self.pending = self.pending, None
        try:
            written.result()
        except (StorageError, OSError) as e:
            failure = e if isinstance(e, StorageError) else StorageError(f"cannot save: {e.strerror or e}")
            self.failures += 1
            self.saved_step = -1
            self.run.event("save failed", step=step, reason=failure.message)
            if required or self.failures >= MAX_FAILURES:
                failure.hint = (
                    f"make room, then {resume_command(self.run.path)}"
                    if self.run.path.is_dir()
                    else "the run folder was moved or removed during training; if it was moved: sslcli resume NEW_PATH"
                )
                raise failure from None
            warn(f"{failure.message}; training continues, the previous checkpoint is kept")
            return
        self.failures = 0
        self.run.set_status(step=step)

    def close(self) -> None:
        if self.thread is not None:
            self.thread.shutdown()


def is_finite(x: Tensor) -> bool:
    """Whether all entries are finite. NaN and infinities show in the extremes; `aminmax` is sixty times as fast as `isfinite`."""
    return x.numel() == 0 or bool(torch.isfinite(torch.stack(x.aminmax())).all())


def save_encoder(run: Run, setup: TrainingSetup, step: int, weights: dict[str, Tensor]) -> None:
    """Write preprocessor/, encoder.safetensors and encoder.json: the `weights` of the backbone, and how to build it."""
    given = setup.given or records.encoder(run.path).get("given")  # `init` may be gone when the run is resumed
    info = {
        "backbone": setup.cfg["backbone"],
        "input_shape": list(setup.dataset.shape),
        "dim": setup.method.eval_backbone.dim,
        "values": setup.dataset.values.to_json(),
        "modality": setup.dataset.modality,
        "dataset": setup.dataset.name,
        "method": setup.cfg["method"]["_target_"],
        "step": step,
        **({"given": given} if given else {}),
        "facts": asdict(builders.describe_data(setup.cfg, setup.dataset)),
    }
    write_encoder(run.path, weights, info, preprocessor_of(setup.dataset).files())
