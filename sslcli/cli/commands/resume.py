"""sslcli resume RUN: continue an interrupted run in its folder, with its configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, run_argument
from sslcli.cli.command_table import COMMANDS
from sslcli.config import Config
from sslcli.errors import RequestError, command, listing

if TYPE_CHECKING:
    from sslcli.runs.run import Run


def main(request: Request) -> int:
    name = run_argument(request, COMMANDS["resume"])

    from sslcli.runs.find import find
    from sslcli.runs.identity import override_execution
    from sslcli.runs.run import Run
    from sslcli.training.pretrain import resume

    run = Run.open(find(name))
    cfg, overrides = run.config, dict(o.partition("=")[::2] for o in request.overrides)
    allow_change = overrides.pop("allow_data_change", "false")
    if allow_change not in ("true", "false"):
        raise RequestError(f"allow_data_change={allow_change}: expected true or false")
    require_config_dirs(run, name, [f"{key}={text}" for key, text in overrides.items()])
    extend = override_execution(cfg, overrides, name, run.path)
    require_known_server(cfg, "logger.mlflow.uri" in overrides, name)
    data_path = str(cfg["dataset"]["path"]) if "dataset.path" in overrides else None
    resume(
        run, cfg if overrides else None, allow_data_change=allow_change == "true", extend=extend, data_path=data_path
    )
    console.out(run.path)
    return 0


def require_config_dirs(run: Run, name: str, overrides: list[str]) -> None:
    """RequestError with the folder to give where a run uses code of a --config-dir that was not given. It is not taken from the run
    folder: that may come from anyone, and must not make code importable."""
    from sslcli.config import instantiate, registry
    from sslcli.runs.find import config_dirs, run_command

    if not (folders := config_dirs(run.path)):
        return
    for group in registry.GROUPS:
        node = run.config.get(group)
        if isinstance(node, dict) and "_target_" in node:
            try:
                instantiate.resolve(group, node["_target_"])
            except RequestError as e:
                again = run_command(run.path, "resume", name, *overrides)
                raise RequestError(
                    e.message, f"the run was trained with the code in {listing(folders)}: {again}"
                ) from None


def require_known_server(cfg: Config, given: bool, name: str) -> None:
    """A run may come from anyone, so its configuration alone does not choose the MLflow server that metrics are sent to: MLflow
    adds the password of the user from the environment. RequestError unless the address is given on the command line, or is
    MLFLOW_TRACKING_URI."""
    options = cfg["logger"].get("mlflow") if isinstance(cfg.get("logger"), dict) else None
    uri = options.get("uri") if isinstance(options, dict) else None
    if uri is not None and not given and uri != os.environ.get("MLFLOW_TRACKING_URI"):
        raise RequestError(
            f"the configuration of this run sends its metrics to {uri}",
            f"if that address is yours: {command('resume', name, f'logger.mlflow.uri={uri}')}",
        )
