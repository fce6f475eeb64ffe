"""A job that Hydra runs: alone, or one of a sweep, in this process or another, on this machine or another.

Hydra holds back what a job of a sweep raises until its batch is over, then raises the first, forgets the others and starts no
further batch. So a job of a sweep does not raise: what became of it stands in the sweep's folder as jobs/NUMBER.json, which
the process that started the sweep reads at the end, wherever the job ran.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from sslcli import console
from sslcli.errors import Interrupted, MachineError, RequestError, SslError, Stopped, StorageError
from sslcli.runs.redact import masked_words
from sslcli.runtime import folders, streams

PARENT = "SSLCLI_SWEEP_PARENT"  # the process that started the sweep: what it runs itself may use its terminal
STOPPING = "stopping"  # a file in jobs/: no further job of this sweep starts
_STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")


class Outcome(NamedTuple):
    """What a task hands back: the number a sweeper may maximise, and the path that belongs on stdout."""

    value: float | None
    path: Path | None = None


class Ended(BaseException):
    """What a job raised, on its way past those who catch every Exception: so that what Hydra itself raises is known as Hydra's."""

    def __init__(self, error: BaseException):
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def signals_end() -> Iterator[dict[int, Any]]:
    """Outside training too a signal ends us with the words and the exit code of a stop. Training has its own handlers.

    Yields the handlers that were there before and come back afterwards."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Ended(Stopped(f"stopped by {signal.Signals(number).name}"))

    try:
        old = {n: signal.signal(n, handle) for name in _STOP_SIGNALS if (n := getattr(signal, name, None))}
    except ValueError:  # not the main thread: no signal comes here
        yield {}
        return
    try:
        yield old
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def job(task: Callable[[Any], Outcome]) -> Callable[[Any], float | None]:
    """The Hydra task of a word."""

    @functools.wraps(task)
    def wrapped(cfg: Any) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra = HydraConfig.get()
        if hydra.mode is not RunMode.MULTIRUN:
            gc.freeze()  # what is there stays: only what the job makes is searched for garbage
        gc.enable()  # `cli.nothing_collected` ends here
        try:
            with streams.lasting(), signals_end() as handlers:
                if hydra.mode is not RunMode.MULTIRUN:
                    return alone(task, cfg)
                return one_of_many(task, cfg, hydra, handlers)
        finally:
            tidy(Path(hydra.runtime.output_dir))

    return wrapped


_CANNOT_STORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # there is no room
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)  # there is a file, and it stays closed
_WRONG_PATH = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTEMPTY,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
    errno.EXDEV,
    errno.EBUSY,
    errno.ETXTBSY,
)
_FULL_TABLE = (errno.EMFILE, errno.ENFILE)


def in_words(e: BaseException) -> SslError | None:
    """An exception as an error for people; None for an internal error.

    The one place that says what an errno means: no command and no key that takes a path has to."""
    if isinstance(e, Ended):
        return in_words(e.error)
    if isinstance(e, SslError):
        return e
    if isinstance(e, KeyboardInterrupt):
        return Interrupted("interrupted")
    no_memory = isinstance(e, RuntimeError) and "DefaultCPUAllocator: " in str(e)  # torch's, which is not imported here
    if no_memory or isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError":
        return MachineError("out of memory", "use a smaller train.batch_size or data set")
    if cannot_import(e):
        console.detail("".join(traceback.format_exception(e)))
        return MachineError(f"a package cannot be imported: {e}", "`sslcli doctor` says which, and what to install")
    return of_a_file(e) if isinstance(e, OSError) else None


def cannot_import(e: BaseException) -> bool:
    """Whether a package of others is missing or broken: torch raises a bare OSError where one of its libraries does not load."""
    if isinstance(e, ImportError):
        return not (e.name or "").startswith("sslcli")
    return isinstance(e, OSError) and e.errno is None and "shared object" in str(e)


def of_a_file(e: OSError) -> SslError | None:
    """Of a file that cannot be read or written; None where the error names none, or one of the program's own."""
    why = e.strerror or str(e)
    if e.errno in _CANNOT_STORE:
        return StorageError(
            f"cannot write {e.filename or 'a file'}: {why}", "free some space there, or write elsewhere"
        )
    if e.errno == errno.ENOMEM:
        return MachineError("out of memory", "use a smaller train.batch_size or data set")
    if e.errno in _FULL_TABLE:
        return MachineError(why, "`ulimit -n 4096` allows more; fewer device.workers need fewer")
    name = os.fsdecode(e.filename) if isinstance(e.filename, str | bytes) else ""
    if not name or (Path(name).is_absolute() and Path(name).is_relative_to(Path(__file__).parent.parent)):
        return None
    shown = name if len(name) <= 200 else f"{name[:100]}...{name[-50:]}"
    console.detail("".join(traceback.format_exception(e)))
    if e.errno in _NOT_ALLOWED:
        own = Path(name).absolute().is_relative_to(folders.runs_root().absolute())
        other = "SSLCLI_RUNS=FOLDER puts runs elsewhere" if own else "or name another path"
        hint = f"check its permissions and those of the folders above it (ls -ld); {other}"
        return StorageError(f"cannot access {shown}: {why}", hint)
    return RequestError(f"cannot use {shown}: {why}", "check the path") if e.errno in _WRONG_PATH else None


def alone(task: Callable[[Any], Outcome], cfg: Any) -> float | None:
    try:
        outcome = task(cfg)
    except Exception as e:
        raise Ended(e) from e
    if outcome.path is not None:
        console.out(outcome.path)
    return outcome.value


def one_of_many(task: Callable[[Any], Outcome], cfg: Any, hydra: Any, handlers: dict[int, Any]) -> float | None:
    """Never raises, unless the sweep itself runs in this process and was asked to stop."""
    jobs, number = Path(hydra.sweep.dir) / "jobs", int(hydra.job.num)
    here = os.environ.get(PARENT) == str(os.getpid())
    if not here:
        os.environ["TERM"] = "dumb"  # one live display on a terminal is enough
    entry = {"job": number, "overrides": list(hydra.overrides.task), "pid": os.getpid(), "host": socket.gethostname()}
    note(jobs, entry, "running")
    if (jobs / STOPPING).exists():
        note(jobs, entry, "stopped")
        return None
    try:
        refuse_link(Path(hydra.runtime.output_dir))
        outcome = task(cfg)
    except (Exception, KeyboardInterrupt, Ended) as e:
        error = in_words(e) or bug(e)
    else:
        note(jobs, entry, "done", run=outcome.path and str(outcome.path), value=outcome.value)
        if here and outcome.path is not None:
            console.out(outcome.path)
        return outcome.value
    stopped = isinstance(error, Stopped | Interrupted)
    note(jobs, entry, "stopped" if stopped else "failed", code=error.code, error=error.message)
    if stopped and here:
        raise Ended(error)
    console.error(error)
    if stopped and not (jobs / STOPPING).exists():
        hand_to_submitit(error, handlers)
    return None


def refuse_link(folder: Path) -> None:
    """RequestError where the folder of a job, in a sweep's folder that may be anybody's, leads elsewhere."""
    if folder.is_symlink():
        raise RequestError(
            f"{folder} is a symbolic link, which is not followed", "remove it, or choose a new sweep folder"
        )


def bug(e: BaseException) -> SslError:
    """Told in full here, where the traceback is."""
    traceback.print_exc()
    return SslError(f"{type(e).__name__}: {e}", "this is a bug in sslcli: please report it with the text above")


def hand_to_submitit(error: SslError, handlers: dict[int, Any]) -> None:
    """The signal by which Slurm tells submitit of a time limit came to our training. With everything saved it is submitit's
    turn: its handler puts the job back into the queue, and does not return."""
    number = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]
    handler = handlers.get(number)
    if "SUBMITIT_EXECUTOR" not in os.environ or number.name not in error.message or not callable(handler):
        return
    try:
        handler(number, None)
    except Exception as e:  # submitit's own: it was told to requeue no more
        console.warn(str(e), "hydra.launcher.max_num_timeout says how often; the same command with resume=auto goes on")


def note(jobs: Path, entry: dict[str, Any], status: str, **values: Any) -> None:
    """What became of a job, for the process that started the sweep."""
    from sslcli.runs.files import make_folder, write_json
    from sslcli.runs.run import now

    jobs.parent.mkdir(parents=True, exist_ok=True)
    make_folder(jobs.parent, jobs.name)
    overrides = masked_words(entry["overrides"])
    write_json(jobs, f"{entry['job']}.json", entry | {"overrides": overrides, "status": status, "time": now()} | values)


def tidy(path: Path) -> None:
    """A job that needed no folder leaves none: Hydra made one, with nothing in it."""
    if path.is_dir() and path.resolve() != Path.cwd():
        with contextlib.suppress(OSError):
            path.rmdir()
