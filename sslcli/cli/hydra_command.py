"""Commands that Hydra runs: all checks first, then the real `hydra.main`, so that `-m`, `--cfg`, launchers and sweepers are
Hydra's own.

The module of such a command has

    prepare(cfg) -> task  all checks, before a folder is created; the task of Hydra, which runs what was prepared
    dry_run(cfg) -> int   the checks and one batch, for --dry-run
    run(cfg)              the task of one job of a sweep: it prepares and runs
    check(cfg)            the checks that read no data: for every job of a sweep
    check_data(cfgs)      optional: checks of all jobs of a sweep against their data

Tasks are decorated with `hydra_task`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import SHOWING_FLAGS, Request, unexpected_argument
from sslcli.cli.command import Command
from sslcli.config import registry, schema
from sslcli.errors import RequestError, SslError, first_line, listing


def run(command: Command, request: Request) -> int:
    """Checks everything, so that a wrong request creates no folder; then Hydra runs the job or the sweep. The exit code."""
    from sslcli.config import compose
    from sslcli.config.modalities import with_implied
    from sslcli.config.overrides import allow_data_path, canonical, with_optional_keys

    module = import_module(f"sslcli.cli.commands.{command.name}")
    request.overrides = with_optional_keys(request.overrides)
    if command.name == "eval":
        select_evaluator(request)
        request.overrides = allow_data_path(request.overrides)
    elif request.positional:
        raise unexpected_argument(request.positional[0], command.name)
    request.overrides = canonical(request.overrides)
    if command.name != "eval" or "run=none" in request.overrides:  # an evaluation has the choices of its run
        request.overrides = with_implied(request.overrides)
    if request.has_flag(*SHOWING_FLAGS):
        if not request.multirun:
            compose.compose(command.name, request.overrides, request.config_dirs)  # for our error messages
        return run_hydra(command, module.run, request, request.overrides)
    if request.dry_run and request.multirun:
        raise RequestError("--dry-run takes one job, not a sweep", "leave out -m, or the commas")
    with warnings.catch_warnings(), gc_disabled():
        warnings.filterwarnings("ignore", message=r"\s*The version_base parameter")  # Hydra 1.4 warns of 1.5
        if request.multirun:
            from sslcli.cli.sweep import Sweep

            check_data = getattr(module, "check_data", None)
            sweep = Sweep.plan(command.name, request.overrides, request.config_dirs, module.check, check_data)
            warn_shadowed(request.config_dirs)
            return sweep.conduct(lambda: run_hydra(command, module.run, request, sweep.overrides))
        for override in request.overrides:
            if override.startswith(("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep")):
                console.warn(f"{override} has no effect without -m")
        cfg = compose.compose(command.name, request.overrides, request.config_dirs)
        warn_shadowed(request.config_dirs)
        if request.dry_run:
            return module.dry_run(cfg)
        task = module.prepare(cfg)
        with compose.composed_already(cfg):
            return run_hydra(command, task, request, request.overrides)


def run_hydra(command: Command, task: Callable[..., object], request: Request, overrides: list[str]) -> int:
    """Calls `hydra.main` and converts its errors."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sslcli.config import messages

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    schema.register()
    sys.argv = ["sslcli", *request.flags, *registry.search_override([]), *overrides]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            hydra.main(version_base="1.3", config_path=str(registry.config_dir()), config_name=command.name)(task)()
    except (HydraException, OmegaConfBaseException) as e:
        raise messages.rewrite_error(e, command.name, request.overrides, request.config_dirs) from None
    except (SslError, OSError):
        raise
    except Exception as e:  # an error of Hydra, about a hydra.* key: those of a job arrive as JobExit
        reasons = ": ".join(first_line(x) for x in (e, e.__cause__) if x is not None)
        raise RequestError(f"hydra: {reasons}", "check the hydra.* keys of the command") from None
    return 0


@contextlib.contextmanager
def gc_disabled() -> Iterator[None]:
    """Disables garbage collection while a job starts: imports create no garbage, and each collection would visit half a million
    objects (a tenth of the time to the first step). `hydra_task` enables it when the job starts."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def select_evaluator(request: Request) -> None:
    """Turns `eval probe` into `evaluator=probe`."""
    from sslcli.config import messages

    names = registry.evaluators(request.config_dirs)
    if len(request.positional) > 1:
        second = request.positional[1]
        if second in names:
            raise RequestError(
                f"eval takes one evaluator, got {' and '.join(request.positional)}",
                f"sslcli eval -m {','.join(request.positional)} runs each",
            )
        if second == "latest" or "/" in second:
            raise RequestError(f"'{second}': expected key=value", f"did you mean run={second}?")
        raise unexpected_argument(second, "eval")
    if request.positional:
        for name in request.positional[0].split(","):
            if name not in names:
                raise messages.unknown_choice("evaluator", name, names)
        request.overrides.insert(0, f"evaluator={request.positional[0]}")
    elif not any(o.startswith("evaluator=") for o in request.overrides):
        raise RequestError("missing argument: NAME", f"sslcli eval NAME, with NAME one of {listing(sorted(names))}")


def warn_shadowed(folders: list[Path]) -> None:
    """Warns of the YAML files of a --config-dir that are ignored because sslcli has a choice of the same name."""
    for folder in folders:
        for group in registry.GROUPS:
            builtin = registry.choices(group)
            for path in (folder / group).glob("*.yaml"):
                if path.stem in builtin:
                    console.warn(f"{path} is not used: sslcli has a {group} of this name", "give it another name")
