"""What a process does that torchrun started with RANK > 0: whatever rank 0 tells it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

WORK = {
    "pretrain": "sslcli.session",
    "eval": "sslcli.commands.eval",
    "bench": "sslcli.bench",
}  # the word of a job -> the module with its `follow`


def main() -> int:
    from sslcli import team

    return team.follow(work)


def work(told: dict[str, Any]) -> None:
    import_module(WORK[told["word"]]).follow(told)
