"""One verb each. A word that Hydra runs has `preview(cfg)` (all checks, before a folder is made), `dry_run(cfg)` and `run(cfg)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sslcli import console
from sslcli.errors import Interrupted, SslError, Stopped

failures: list[SslError] = []  # of the jobs that Hydra ran in this process


def job(task: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A Hydra task whose SslErrors are told at once and counted, so that one failed job of a sweep does not end the others.

    Ctrl-C and signals do end a sweep. Anything else is a bug of ours and flies."""

    @functools.wraps(task)
    def wrapped(cfg: Any) -> Any:
        try:
            return task(cfg)
        except (Interrupted, Stopped) as e:
            console.error(e)
            failures.append(e)
            raise KeyboardInterrupt from None
        except SslError as e:
            console.error(e)
            failures.append(e)
            return None

    return wrapped
