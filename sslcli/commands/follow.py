"""What a process does that torchrun started with RANK > 0: whatever rank 0 says."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from sslcli.errors import SslError

WORK = {
    "pretrain": "sslcli.session",
    "eval": "sslcli.commands.eval",
    "bench": "sslcli.bench",
}  # the word of a job -> the module with its `follow`


def main(argv: list[str]) -> int:
    """Modules may be imported from the folders of this process's own command line, whatever rank 0 says."""
    from sslcli import team
    from sslcli.cli import parse, take_config_dir

    with contextlib.suppress(SslError):  # rank 0 says what is wrong with the request
        for folder in parse(argv).config_dirs:
            take_config_dir(folder)
    return team.follow(work)


def work(told: dict[str, Any]) -> None:
    import_module(WORK[told["word"]]).follow(told)
