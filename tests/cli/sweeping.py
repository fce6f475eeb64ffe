"""Helpers for tests of sweeps: run folders, records of jobs, and waiting for a condition."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import SMOKE

ROOT = Path(__file__).parents[2]
ONE_STEP = [*SMOKE, "train.steps=1"]
LONG = [*SMOKE, "train.steps=1000000", "train.save_every=1h"]
ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def runs(folder: Path = Path()) -> list[Path]:
    return sorted(p.parent for p in folder.glob("runs/**/status.json"))


def status(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())


def jobs(folder: Path = Path()) -> list[dict[str, Any]]:
    """The records of the jobs of the newest sweep."""
    newest = max(folder.glob("runs/sweep/*"))
    return [json.loads(p.read_text()) for p in sorted(newest.glob("jobs/*.json"))]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


def training(run: Path) -> bool:
    """Whether the run has a line of metrics: the signal handlers of the training loop are then installed."""
    return (run / "metrics.jsonl").exists()
