"""From a job to a trained run: alone or as a team, the status of the run true whatever happens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sslcli.config import instantiate
from sslcli.console import human_time
from sslcli.data.dataset import Dataset
from sslcli.data.record import DataRecord
from sslcli.errors import DataError, Interrupted, MachineError, SslError, Stopped
from sslcli.nn.dist import broadcast_from_rank0, rank, world_size
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.runtime import processes
from sslcli.training.setup import Job, prepare
from sslcli.training.state import Plan, State
from sslcli.training.trainer import Trainer


def run_job(job: Job, run: Run, state: State | None = None) -> State:
    """Trains to the end, in as many processes as the job says; this one is their rank 0."""
    state = state or State()
    told = {
        "word": "pretrain",
        "cfg": job.cfg,
        "folders": instantiate.trusted_folders(),
        "run": str(run.path),
        "fingerprint": job.dataset.fingerprint,
        "record": asdict(job.record) if job.record is not None else None,
    }
    try:
        with processes.launch(job.runtime.process, job.runtime.device, told, follow):
            state = together(job, run, state)
    except (Interrupted, Stopped):
        run.set_status("interrupted", step=state.step)
        raise
    except torch.OutOfMemoryError as e:
        run.set_status("failed", step=state.step, error="out of memory")
        raise out_of_memory(job) from e
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
        peak_memory_mb=round(job.runtime.peak_memory_mb()),
    )
    run.write_log(f"done: {state.step} steps in {human_time(state.seconds)}")
    return state


def follow(told: dict[str, Any]) -> None:
    """The same job in another process: its own data and objects, the state of rank 0, nothing written."""
    trust(told.get("folders", []))
    record = DataRecord(**told["record"]) if told["record"] is not None else None
    job = prepare(told["cfg"], rehearsal=False, record=record)
    same_data(job.dataset, told["fingerprint"])
    processes.join_group(job.runtime.device)
    together(job, NullRun(Path(told["run"])), State())


def trust(folders: list[str]) -> None:
    """What the user allowed rank 0 to import, a process that follows may import too."""
    for folder in folders:
        instantiate.trust_folder(Path(folder))


def same_data(dataset: Dataset, fingerprint: str) -> None:
    """DataError where this process sees other data than rank 0."""
    if dataset.fingerprint != fingerprint:
        raise DataError(
            f"the data of {dataset.name} is not that of rank 0 (fingerprint {dataset.fingerprint[:12]}, there "
            f"{fingerprint[:12]})",
            "every machine must see the same files",
        )


def together(job: Job, run: Run, state: State) -> State:
    """What every process does, rank 0 too: start from its weights and counters, and train."""
    if world_size() > 1:
        names = checkpoint.parameter_names(job.method)
        here: tuple[dict[str, Any], dict[str, Any], Any] = (asdict(state), {}, ())
        if rank() == 0:
            tensors = {k: v.cpu() for k, v in job.method.state_dict().items()}
            here = asdict(state), tensors, checkpoint.optimizer_tensors(job.optimizer, names)
        sent, tensors, optimizer = broadcast_from_rank0(here)
        if rank() > 0:
            state = State(**{**sent, "plan": sent["plan"] and Plan(**sent["plan"])})
            checkpoint.load_strictly(job.method, tensors, "what rank 0 sent")
            checkpoint.restore_optimizer(job.optimizer, names, *optimizer)
    Trainer(job, run, state).fit()
    return state


class NullRun(Run):
    """The run as a process sees it that is not rank 0: it writes nothing."""

    def log(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None: ...
    def event(self, kind: str, **values: Any) -> None: ...
    def set_status(self, state: str | None = None, **values: Any) -> None: ...
    def write_log(self, text: str) -> None: ...


def out_of_memory(job: Job) -> SslError:
    batch, accumulate = job.cfg["train"]["batch_size"], job.cfg["train"]["accumulate"]
    each = batch // accumulate // job.loader.world_size
    return MachineError(
        f"out of memory on {job.runtime.device} with {each} samples at a time "
        f"(peak {job.runtime.peak_memory_mb():,.0f} MB)",
        f"the same batch in smaller portions: train.accumulate={accumulate * 2}",
    )
