"""Guards against what never ends, that a busy machine cannot set off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sslcli.cli.hydra_command import gc_disabled

T = TypeVar("T")


def cost(work: Callable[[], T], limit: float, tries: int = 3) -> tuple[T, float]:
    """What `work` gives, and the seconds of processor that it takes: of this thread alone, and without searches for garbage
    through all that other tests have left (`sslcli` starts without them too). Over `limit`, the least of `tries`.

    A blow-up costs as much each time; a processor shared with others does not.
    """
    least = float("inf")
    for _ in range(tries):
        with gc_disabled():
            began = time.thread_time()
            result = work()
            least = min(least, time.thread_time() - began)
        if least <= limit:
            break
    return result, least
