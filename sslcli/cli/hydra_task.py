"""The task of a job that Hydra runs: alone, or one of a sweep, in this process or another, on this machine or another.

Hydra holds back the exceptions of a sweep's jobs until their batch ends, then raises the first, discards the others and starts
no further batch. A job of a sweep therefore does not raise: it records its outcome in the folder of the sweep, as
jobs/NUMBER.json, and the process that started the sweep reads these files at the end, wherever the jobs ran.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sslcli import console
from sslcli.cli.exceptions import JobExit, stop_on_signals, to_ssl_error
from sslcli.errors import Interrupted, RequestError, SslError, Stopped
from sslcli.runs import Record
from sslcli.runs.redact import redacted_overrides
from sslcli.runtime import streams

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

PARENT = "SSLCLI_SWEEP_PARENT"  # the process that started the sweep: jobs in it may use its terminal
STOP_FILE = "stopping"  # in jobs/: no further job of this sweep starts


class Outcome(NamedTuple):
    """What a job returns: the value that a sweeper may maximize, the path to print on stdout, and metrics."""

    value: float | None
    path: Path | None = None
    numbers: dict[str, float] | None = None  # of an evaluation, such as probe.top1, for the report of a sweep


def hydra_task(run: Callable[[DictConfig], Outcome]) -> Callable[[DictConfig], float | None]:
    """Decorates the function of a command that runs one job."""

    @functools.wraps(run)
    def task(cfg: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra = HydraConfig.get()
        in_sweep = hydra.mode is RunMode.MULTIRUN
        if not in_sweep:
            gc.freeze()  # later collections visit only the objects that the job creates
        gc.enable()  # `hydra_command.gc_disabled` ends here
        try:
            with streams.tolerant_streams(), stop_on_signals() as handlers:
                return run_sweep_job(run, cfg, hydra, handlers) if in_sweep else run_alone(run, cfg)
        finally:
            remove_if_empty(Path(hydra.runtime.output_dir))

    return task


def run_alone(run: Callable[[DictConfig], Outcome], cfg: DictConfig) -> float | None:
    try:
        outcome = run(cfg)
    except Exception as e:
        raise JobExit(e) from e
    if outcome.path is not None:
        console.out(outcome.path)
    return outcome.value


def run_sweep_job(
    run: Callable[[DictConfig], Outcome], cfg: DictConfig, hydra: HydraConf, handlers: dict[int, Any]
) -> float | None:
    """Runs one job of a sweep and records its outcome. Raises only if the sweep runs in this process and is stopped."""
    jobs, number = Path(hydra.sweep.dir) / "jobs", int(hydra.job.num)
    here = os.environ.get(PARENT) == str(os.getpid())
    if not here:
        os.environ["TERM"] = "dumb"  # only one process draws a live display
    entry = {"job": number, "overrides": list(hydra.overrides.task), "pid": os.getpid(), "host": socket.gethostname()}
    entry["command"] = str(hydra.job.config_name)
    write_record(jobs, entry, "running")
    if (jobs / STOP_FILE).exists():
        write_record(jobs, entry, "stopped")
        return None
    try:
        refuse_link(Path(hydra.runtime.output_dir))
        outcome = run(cfg)
    except (Exception, KeyboardInterrupt, JobExit) as e:
        error = to_ssl_error(e) or internal_error(e)
    else:
        found = {} if outcome.numbers is None else {"numbers": outcome.numbers}
        write_record(jobs, entry, "done", run=outcome.path and str(outcome.path), value=outcome.value, **found)
        if here and outcome.path is not None:
            console.out(outcome.path)
        return outcome.value
    stopped = isinstance(error, Stopped | Interrupted)
    write_record(jobs, entry, "stopped" if stopped else "failed", code=error.code, error=error.message, hint=error.hint)
    if stopped and here:
        raise JobExit(error)
    console.error(error)
    if stopped and not (jobs / STOP_FILE).exists():
        requeue_by_submitit(error, handlers)
    return None


def refuse_link(folder: Path) -> None:
    """Raises RequestError if the folder of a job is a symbolic link: other users may be able to write to a sweep's folder."""
    if folder.is_symlink():
        raise RequestError(
            f"{folder} is a symbolic link, which is not followed", "remove it, or choose a new sweep folder"
        )


def internal_error(e: BaseException) -> SslError:
    """The error that is recorded for a bug; prints the traceback, which only this process has."""
    traceback.print_exc()
    return SslError(f"{type(e).__name__}: {e}", "this is a bug in sslcli: please report it with the text above")


def requeue_by_submitit(error: SslError, handlers: dict[int, Any]) -> None:
    """Calls the handler of submitit if training was stopped by the signal by which Slurm announces the time limit. With the run
    saved, the handler puts the job back into the queue and does not return."""
    number = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]
    handler = handlers.get(number)
    if "SUBMITIT_EXECUTOR" not in os.environ or number.name not in error.message or not callable(handler):
        return
    try:
        handler(number, None)
    except Exception as e:  # submitit's own: the limit of requeues is reached
        console.warn(
            str(e), "hydra.launcher.max_num_timeout sets the limit; run the same command with resume=auto to continue"
        )


def write_record(jobs: Path, entry: Record, status: str, **values: Any) -> None:
    """Writes the state of a job to jobs/NUMBER.json."""
    from sslcli.runs.files import make_folder, write_json
    from sslcli.runs.run import now

    jobs.parent.mkdir(parents=True, exist_ok=True)
    make_folder(jobs.parent, jobs.name)
    overrides = redacted_overrides(entry["overrides"])
    write_json(jobs, f"{entry['job']}.json", entry | {"overrides": overrides, "status": status, "time": now()} | values)


def remove_if_empty(path: Path) -> None:
    """Removes the folder that Hydra created for a job that wrote nothing."""
    if path.is_dir() and path.resolve() != Path.cwd():
        with contextlib.suppress(OSError):
            path.rmdir()
