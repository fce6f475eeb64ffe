"""Train a run in one or several processes, and keep its status up to date whatever happens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sslcli.builders import require_fingerprint
from sslcli.config import instantiate
from sslcli.console import human_time
from sslcli.data.record import DataRecord
from sslcli.errors import Interrupted, MachineError, SslError, Stopped
from sslcli.nn.dist import broadcast_from_rank0, rank, world_size
from sslcli.runs import checkpoint
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run
from sslcli.runtime import processes
from sslcli.training.loop.optimizer_state import optimizer_tensors, parameter_names, restore_optimizer
from sslcli.training.loop.trainer import Trainer
from sslcli.training.setup import TrainingSetup, prepare
from sslcli.training.state import Horizon, State


def run_training(setup: TrainingSetup, run: Run, state: State | None = None) -> State:
    """Train to the end, in as many processes as the setup says. This process is rank 0."""
    state = state or State()
    payload = {
        "command": "pretrain",
        "cfg": setup.cfg,
        "folders": instantiate.trusted_folders(),
        "run": str(run.path),
        "fingerprint": setup.dataset.fingerprint,
        "record": asdict(setup.record) if setup.record is not None else None,
    }
    next_step = f"the last checkpoint is intact: {resume_command(run.path)} (out of memory? train.accumulate=2)"
    try:
        with processes.launch(setup.runtime.process, setup.runtime.device, payload, run_worker, next_step):
            state = fit(setup, run, state)
    except (Interrupted, Stopped, KeyboardInterrupt):  # the last where signals are not caught
        run.set_status("interrupted", step=state.step)
        raise
    except torch.OutOfMemoryError as e:
        run.set_status("failed", step=state.step, error="out of memory")
        raise out_of_memory(setup) from e
    except SslError as e:
        run.set_status("failed", step=state.step, error=e.message)
        raise
    except BaseException as e:
        run.set_status("failed", step=state.step, error=f"{type(e).__name__}: {e}")
        raise
    run.set_status(
        "done",
        step=state.step,
        seconds=round(state.seconds, 1),
        peak_memory_mb=round(setup.runtime.peak_memory_mb()),
    )
    run.write_log(f"done: {state.step} steps in {human_time(state.seconds)}")
    return state


def run_worker(payload: dict[str, Any]) -> None:
    """Train the same run in another process: separate data and objects, the state of rank 0, no output."""
    instantiate.trust_folders(payload.get("folders", []))
    record = DataRecord(**payload["record"]) if payload["record"] is not None else None
    setup = prepare(payload["cfg"], rehearsal=False, record=record)
    require_fingerprint(setup.dataset, payload["fingerprint"])
    processes.join_group(setup.runtime.device)
    fit(setup, NullRun(Path(payload["run"])), State())


def fit(setup: TrainingSetup, run: Run, state: State) -> State:
    """Train in this process, from the weights and counters of rank 0."""
    if world_size() > 1:
        names = parameter_names(setup.method)
        initial: tuple[dict[str, Any], dict[str, Any], Any] = (asdict(state), {}, ())
        if rank() == 0:
            tensors = {k: v.cpu() for k, v in setup.method.state_dict().items()}
            initial = asdict(state), tensors, optimizer_tensors(setup.optimizer, names)
        counters, tensors, optimizer = broadcast_from_rank0(initial)
        if rank() > 0:
            state = State(**{**counters, "plan": counters["plan"] and Horizon(**counters["plan"])})
            checkpoint.load_strictly(setup.method, tensors, "the weights of rank 0")
            restore_optimizer(setup.optimizer, names, *optimizer)
    Trainer(setup, run, state).fit()
    return state


class NullRun(Run):
    """The run in a process other than rank 0: it writes nothing."""

    def log(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None: ...
    def event(self, kind: str, **values: Any) -> None: ...
    def set_status(self, state: str | None = None, **values: Any) -> None: ...
    def write_log(self, text: str) -> None: ...
    def write_config(self, cfg: Any) -> None: ...


def out_of_memory(setup: TrainingSetup) -> SslError:
    """The error of a run whose micro-batch does not fit into memory."""
    batch_size, accumulate = setup.cfg["train"]["batch_size"], setup.cfg["train"]["accumulate"]
    micro_batch = batch_size // accumulate // setup.loader.world_size
    return MachineError(
        f"out of memory on {setup.runtime.device} with {micro_batch} samples at a time "
        f"(peak {setup.runtime.peak_memory_mb():,.0f} MB)",
        f"the same batch in smaller micro-batches: train.accumulate={accumulate * 2}",
    )
