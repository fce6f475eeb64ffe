"""A sweep, seen from the process that starts it: every value is checked first, signals reach all jobs, and the exit code tells
of the worst that happened, whatever launcher ran the jobs and wherever."""

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
from typing import Any

from sslcli import console
from sslcli.cli.exceptions import JobExit, to_ssl_error
from sslcli.cli.hydra_task import PARENT, STOP_FILE
from sslcli.config import compose, registry, schema
from sslcli.errors import Interrupted, MachineError, RequestError, SslError, Stopped, first_line
from sslcli.runs import records
from sslcli.runs.files import make_folder, replace_file, unlink_shared

EXTRAS = {  # choice of hydra/launcher or hydra/sweeper -> (the module that has it, our extra)
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "hpo"),
}
MOST_LOOKS = 20  # configurations composed before the sweep starts; Hydra looks at the rest


@dataclass
class Sweep:
    """`-m`, from its overrides to its exit code."""

    word: str
    overrides: list[str]
    folder: Path
    launcher: str
    sweeper: str = "basic"
    received: signal.Signals | None = field(default=None)

    @property
    def again(self) -> str:
        return "the same command" + (" with resume=auto does what is left" if self.word != "eval" else " again")

    # --------------------------------------------------------------------------------------------------------- before

    @classmethod
    def plan(
        cls,
        word: str,
        overrides: list[str],
        extra: list[Path],
        look: Callable[[Any], None],
        look_at_data: Callable[[list[Any]], None] | None = None,
    ) -> Sweep:
        """Looks at every swept value once, before any folder is made; `look_at_data`: whether all of them fit their data, which a
        machine that only hands jobs to Slurm need not have. RequestError, MachineError."""
        require_plugins(overrides)
        requests = [compose.compose(word, each, extra) for each in samples(word, overrides, extra)[:MOST_LOOKS]]
        for cfg in requests:
            look(cfg)
        first = requests[0]
        choices = first.hydra.runtime.choices
        if look_at_data is not None and choices["hydra/launcher"] != "submitit_slurm":
            look_at_data(requests)
        folder = Path(str(first.hydra.sweep.dir))
        unlink_shared(folder / "multirun.yaml")  # Hydra writes it again
        pinned = str(folder).replace("'", "\\'")
        overrides = [*overrides, f"hydra.sweep.dir='{pinned}'"]
        if choices["hydra/sweeper"] == "optuna" and not any("hydra.sweeper.direction=" in o for o in overrides):
            console.say("optuna looks for the largest number (hydra.sweeper.direction=maximize): it is an accuracy")
            overrides.append("hydra.sweeper.direction=maximize")
        return cls(word, overrides, folder, choices["hydra/launcher"], choices["hydra/sweeper"])

    # --------------------------------------------------------------------------------------------------------- during

    def conduct(self, launch: Callable[[], object]) -> int:
        """Runs the sweep; returns its exit code. What Hydra itself finds wrong with the request flies, and leaves no folder."""
        os.environ[PARENT] = str(os.getpid())
        try:
            with self.passing_signals_on():
                launch()
        except (JobExit, KeyboardInterrupt):  # a stop, in this process
            self.report()
            raise
        except Exception as e:  # jobs raise nothing: it is of Hydra's launcher or sweeper
            self.tidy()
            if (error := to_ssl_error(e)) is not None:
                raise error from None
            said = f"hydra/sweeper={self.sweeper}, hydra/launcher={self.launcher}: {type(e).__name__}: {first_line(e)}"
            console.detail(traceback.format_exc())
            if not self.received and not self.casualties():
                raise MachineError(said, "docs/guides/sweeps.md has the versions they were tried with") from None
            console.say(said)
        finally:
            del os.environ[PARENT]
        return self.report()

    @contextlib.contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Jobs in other processes of this machine are asked to stop too, and waited for; none starts any more.

        What is in Slurm's queue stays there: it has a life, and a `scancel`, of its own."""
        if self.launcher in ("basic", "submitit_slurm"):
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received is not None and number == signal.SIGINT:  # the second: not waiting for anybody
                raise JobExit(Interrupted("interrupted"))
            self.received = signal.Signals(number)
            replace_file(make_folder(self.folder, "jobs"), STOP_FILE, "")
            for outcome in self.outcomes():
                if (
                    outcome["status"] == "running"
                    and outcome.get("host") == socket.gethostname()
                    and outcome.get("pid", 0) > 1
                ):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(outcome["pid"], signal.SIGTERM)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        old = {n: signal.signal(n, handle) for n in numbers}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    # ---------------------------------------------------------------------------------------------------------- after

    def outcomes(self) -> list[dict[str, Any]]:
        """What became of each job that was started, by number."""
        return records.jobs(self.folder)

    def casualties(self) -> list[dict[str, Any]]:
        """Those that failed, and those whose process died."""
        return [o for o in self.outcomes() if o["status"] in ("failed", "running")]

    def report(self) -> int:
        """What the jobs could not say on our stdout and stderr; the exit code of the sweep."""
        outcomes, failed = self.outcomes(), self.casualties()
        for o in outcomes:
            if o["status"] == "done" and o.get("pid") != os.getpid() and o.get("run"):
                console.out(o["run"])
        for o in failed:
            name = f"job {o['job']} ({' '.join(o['overrides'])})"
            if o["status"] == "running":
                o["code"] = MachineError.code
                console.error(
                    MachineError(f"{name}: its process died without a word", f"short of memory? {self.again}")
                )
            elif self.launcher.startswith("submitit"):  # it spoke in a file of its own
                console.error(SslError(f"{name}: {o.get('error')}"))
        if failed:
            console.warn(f"{len(failed)} of {len(outcomes)} jobs failed; see {self.folder}/jobs")
        stopped = [o for o in outcomes if o["status"] == "stopped"]
        if self.received or stopped:
            done = sum(o["status"] == "done" for o in outcomes)
            console.warn(f"the sweep was stopped; {done} of its jobs are done", self.again)
            return Interrupted.code if self.received is signal.SIGINT else Stopped.code
        return failed[0].get("code", 1) if failed else 0

    def tidy(self) -> None:
        """Where no job began, Hydra's own file is all there is."""
        if self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= {"multirun.yaml"}:
            shutil.rmtree(self.folder)


def require_plugins(overrides: list[str]) -> None:
    from importlib.util import find_spec

    for override in overrides:
        key, _, choice = override.partition("=")
        if key not in ("hydra/launcher", "hydra/sweeper") or choice not in EXTRAS:
            continue
        module, extra = EXTRAS[choice]
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:  # not even a hydra_plugins package
            there = False
        if not there:
            raise MachineError(f"{override} is not installed", f"pip install 'sslcli[{extra}]'")


def samples(word: str, overrides: list[str], extra: list[Path]) -> list[list[str]]:
    """Plain overrides in which each swept value stands once: the first of each key, then the second of each, and so on."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from sslcli.config.messages import rewrite_error

    schema.register()
    try:
        with hydra.initialize_config_dir(str(registry.config_dir()), version_base="1.3"):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # for glob(*)
            options = [values(o) for o in parser.parse_overrides(overrides)]
    except HydraException as e:
        raise rewrite_error(e, word, overrides, extra) from None
    for given, option in zip(overrides, options, strict=True):
        if not option:
            raise RequestError(f"`{given}` has no value to try")
    first = [o[0] for o in options]
    others = sorted((k, i) for i, option in enumerate(options) for k in range(1, len(option)))
    return [first, *([*first[:i], options[i][k], *first[i + 1 :]] for k, i in others)]


def values(override: Any) -> list[str]:
    """`seed=0,1` -> [`seed=0`, `seed=1`]; of an interval the ends; of what is not swept the override itself."""
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.get_key_element()
    if override.is_interval_sweep():
        return [f"{key}={v}" for v in (override.value().start, override.value().end)]
    return [f"{key}={v}" for v in override.sweep_string_iterator()]
