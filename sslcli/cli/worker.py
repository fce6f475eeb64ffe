"""A process that a launcher started with rank > 0: it runs the tasks that rank 0 sends."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from sslcli.cli.arguments import parse, use_config_dir
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import SslError
from sslcli.runtime import processes

TASKS = {  # command -> the module whose `run_worker` runs its share
    "pretrain": "sslcli.training.run_training",
    "eval": "sslcli.evals.base.evaluation",
    "bench": "sslcli.training.benchmark",
    "embed": "sslcli.inference.session",
    "predict": "sslcli.inference.session",
}


def main(argv: list[str]) -> int:
    """Runs tasks until rank 0 has no more. Modules are imported only from the --config-dir of this process's own command line."""
    with contextlib.suppress(SslError):  # rank 0 reports what is wrong with the request
        for folder in parse(argv[1:], COMMANDS[argv[0]]).config_dirs:
            use_config_dir(folder)
    return processes.run_worker(run_task)


def run_task(payload: dict[str, Any]) -> None:
    import_module(TASKS[payload["command"]]).run_worker(payload)
