"""A sweep (`-m`), in the process that starts it: checks of every value, signals for all jobs, and the exit code.

The exit code is that of the first failed job, whatever launcher ran the jobs and on whatever machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.exceptions import JobExit, to_ssl_error
from sslcli.cli.hydra_task import PARENT, STOP_FILE
from sslcli.config import compose, registry, schema
from sslcli.errors import Interrupted, MachineError, RequestError, SslError, Stopped, first_line
from sslcli.runs import Record, records
from sslcli.runs.files import make_folder, replace_file, unlink_shared
from sslcli.runs.find import resume_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXTRAS = {  # choice of hydra/launcher or hydra/sweeper -> (its module, the extra of sslcli that installs it)
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "hpo"),
}
MAX_CHECKED = (
    20  # configurations composed before the sweep starts; the remaining ones are checked when their jobs start
)


@dataclass
class Sweep:
    """A sweep, from its overrides to its exit code."""

    command: str
    overrides: list[str]
    folder: Path
    launcher: str
    sweeper: str = "basic"
    received: signal.Signals | None = field(default=None)

    @property
    def next_hint(self) -> str:
        return f"run the same command {'' if self.command == 'eval' else 'with resume=auto '}to continue"

    # --------------------------------------------------------------------------------------------------------- before

    @classmethod
    def plan(
        cls,
        command: str,
        overrides: list[str],
        config_dirs: list[Path],
        check: Callable[[DictConfig], None],
        check_data: Callable[[list[DictConfig]], None] | None = None,
    ) -> Sweep:
        """Checks every swept value once, before a folder is created.

        `check` checks one configuration. `check_data` checks all of them against their data, except for Slurm: the machine that
        submits the jobs need not have the data.

        Raises:
            RequestError: a value is wrong.
            MachineError: the launcher or the sweeper is not installed.
        """
        require_plugins(overrides)
        jobs = expand_sweep(command, overrides, config_dirs)[:MAX_CHECKED]
        cfgs = [compose.compose(command, job, config_dirs) for job in jobs]
        for cfg in cfgs:
            check(cfg)
        choices = cfgs[0].hydra.runtime.choices
        if check_data is not None and choices["hydra/launcher"] != "submitit_slurm":
            check_data(cfgs)
        folder = Path(str(cfgs[0].hydra.sweep.dir))
        unlink_shared(folder / "multirun.yaml")  # Hydra writes it again
        quoted = str(folder).replace("'", "\\'")
        overrides = [*overrides, f"hydra.sweep.dir='{quoted}'"]
        if choices["hydra/sweeper"] == "optuna" and not any("hydra.sweeper.direction=" in o for o in overrides):
            console.say("optuna maximizes the accuracy of the jobs (hydra.sweeper.direction=maximize)")
            overrides.append("hydra.sweeper.direction=maximize")
        return cls(command, overrides, folder, choices["hydra/launcher"], choices["hydra/sweeper"])

    # --------------------------------------------------------------------------------------------------------- during

    def conduct(self, launch: Callable[[], object]) -> int:
        """Runs the sweep and returns its exit code. An error of Hydra about the request is raised, and leaves no folder."""
        os.environ[PARENT] = str(os.getpid())
        try:
            with self.forward_signals():
                launch()
        except (JobExit, KeyboardInterrupt):  # stopped in this process
            self.report()
            raise
        except Exception as e:  # of Hydra's launcher or sweeper: jobs do not raise
            self.remove_if_empty()
            if (error := to_ssl_error(e)) is not None:
                raise error from None
            message = (
                f"hydra/sweeper={self.sweeper}, hydra/launcher={self.launcher}: {type(e).__name__}: {first_line(e)}"
            )
            console.detail(traceback.format_exc())
            if not self.received and not self.failures():
                raise MachineError(message, "docs/guides/sweeps.md lists the tested versions") from None
            console.say(message)
        finally:
            del os.environ[PARENT]
        return self.report()

    @contextlib.contextmanager
    def forward_signals(self) -> Iterator[None]:
        """Inside, a signal stops the jobs in other processes of this machine too, and no further job starts.

        Jobs in the queue of Slurm are not stopped: `scancel` does that."""
        if self.launcher in ("basic", "submitit_slurm"):
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received is not None and number == signal.SIGINT:  # the second Ctrl-C does not wait for the jobs
                raise JobExit(Interrupted("interrupted"))
            self.received = signal.Signals(number)
            replace_file(make_folder(self.folder, "jobs"), STOP_FILE, "")
            for job in self.jobs():
                local = job.get("host") == socket.gethostname() and job.get("pid", 0) > 1
                if job["status"] == "running" and local:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(job["pid"], signal.SIGTERM)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        previous = {n: signal.signal(n, handle) for n in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    # ---------------------------------------------------------------------------------------------------------- after

    def jobs(self) -> list[Record]:
        """The records of the jobs that were started, by number."""
        return records.jobs(self.folder)

    def failures(self) -> list[Record]:
        """The records of the jobs that failed, and of those whose process died."""
        return [job for job in self.jobs() if job["status"] in ("failed", "running")]

    def report(self) -> int:
        """Prints what jobs in other processes could not print here, and returns the exit code of the sweep."""
        jobs, failures = self.jobs(), self.failures()
        for job in jobs:
            if job["status"] == "done" and job.get("pid") != os.getpid() and job.get("run"):
                console.out(job["run"])
        for job in failures:
            name = f"job {job['job']} ({' '.join(job['overrides'])})"
            if job["status"] == "running":
                job["code"] = MachineError.code
                hint = f"check whether it ran out of memory; {self.continue_hint(job)}"
                console.error(MachineError(f"{name}: the process exited unexpectedly", hint))
            elif self.launcher.startswith("submitit"):  # whose output is in a file
                console.error(SslError(f"{name}: {job.get('error')}", job.get("hint")))
        if failures:
            console.warn(f"{len(failures)} of {len(jobs)} jobs failed; see {self.folder}/jobs")
        if self.received or any(job["status"] == "stopped" for job in jobs):
            done = sum(job["status"] == "done" for job in jobs)
            console.warn(f"the sweep was stopped; {done} of its jobs are done", self.next_hint)
            return Interrupted.code if self.received is signal.SIGINT else Stopped.code
        return failures[0].get("code", 1) if failures else 0

    def continue_hint(self, job: Record) -> str:
        """The command that resumes the run of a job alone, where it has one."""
        found = [
            path.parent for path in self.folder.glob(f"{job['job']}_*/status.json") if not path.parent.is_symlink()
        ]
        return f"{resume_command(found[0])} continues its run alone; {self.next_hint}" if found else self.next_hint

    def remove_if_empty(self) -> None:
        """Removes the folder of the sweep where no job has started."""
        if self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= {"multirun.yaml"}:
            shutil.rmtree(self.folder)


def require_plugins(overrides: list[str]) -> None:
    """Raises MachineError if a launcher or a sweeper is not installed."""
    from importlib.util import find_spec

    for override in overrides:
        key, _, choice = override.partition("=")
        if key not in ("hydra/launcher", "hydra/sweeper") or choice not in EXTRAS:
            continue
        module, extra = EXTRAS[choice]
        try:
            installed = find_spec(module) is not None
        except ModuleNotFoundError:  # not even the package hydra_plugins
            installed = False
        if not installed:
            raise MachineError(f"{override} is not installed", f"pip install 'sslcli[{extra}]'")


def expand_sweep(command: str, overrides: list[str], config_dirs: list[Path]) -> list[list[str]]:
    """Overrides of single jobs in which each swept value occurs once.

    The first job has the first value of every key; each of the others differs from it in one key: all second values, all third
    values, and so on. RequestError where Hydra cannot parse an override."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from sslcli.config.messages import rewrite_error

    schema.register()
    try:
        with hydra.initialize_config_dir(str(registry.config_dir()), version_base="1.3"):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # for glob(*)
            options = [sweep_values(o) for o in parser.parse_overrides(overrides)]
    except HydraException as e:
        raise rewrite_error(e, command, overrides, config_dirs) from None
    for override, option in zip(overrides, options, strict=True):
        if not option:
            raise RequestError(f"`{override}` has no value to try")
    first = [o[0] for o in options]
    others = sorted((k, i) for i, option in enumerate(options) for k in range(1, len(option)))
    return [first, *([*first[:i], options[i][k], *first[i + 1 :]] for k, i in others)]


def sweep_values(override: Any) -> list[str]:
    """`seed=0,1` -> [`seed=0`, `seed=1`]; the two ends of an interval; an override without a sweep unchanged."""
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.get_key_element()
    if override.is_interval_sweep():
        return [f"{key}={v}" for v in (override.value().start, override.value().end)]
    return [f"{key}={v}" for v in override.sweep_string_iterator()]
