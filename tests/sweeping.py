"""What tests of sweeps look at: run folders, what became of jobs; and waiting for something to happen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import SMOKE

ROOT = Path(__file__).parent.parent
ONE_STEP = [*SMOKE, "train.steps=1"]
LONG = [*SMOKE, "train.steps=1000000", "train.save_every=1h"]
ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def runs(folder: Path = Path()) -> list[Path]:
    return sorted(p.parent for p in folder.glob("runs/**/status.json"))


def status(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())


def jobs(folder: Path = Path()) -> list[dict[str, Any]]:
    """What became of the jobs of the newest sweep."""
    newest = max(folder.glob("runs/sweep/*"))
    return [json.loads(p.read_text()) for p in sorted(newest.glob("jobs/*.json"))]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def training(run: Path) -> bool:
    """At least one line of metrics: the handlers of the loop are in place."""
    return (run / "metrics.jsonl").exists()
