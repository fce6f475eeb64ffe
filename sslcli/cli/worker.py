"""What a process does that torchrun started with RANK > 0: whatever rank 0 says."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from sslcli.errors import SslError

WORK = {
    "pretrain": "sslcli.training.launch",
    "eval": "sslcli.evals.base.evaluation",
    "bench": "sslcli.training.benchmark",
}  # the word of a job -> the module with its `follow`


def main(argv: list[str]) -> int:
    """Modules may be imported from the folders of this process's own command line, whatever rank 0 says."""
    from sslcli.cli.main import parse, take_config_dir
    from sslcli.runtime import processes

    with contextlib.suppress(SslError):  # rank 0 says what is wrong with the request
        for folder in parse(argv).config_dirs:
            take_config_dir(folder)
    return processes.run_worker(work)


def work(told: dict[str, Any]) -> None:
    import_module(WORK[told["word"]]).follow(told)
