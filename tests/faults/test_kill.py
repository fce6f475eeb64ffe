"""Twenty SIGKILLs at random times: all files are readable, and every resumed run is bit-identical. See benchmarks/ for more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "kill_campaign.py"


def test_run_survives_twenty_kills(tmp_path):
    words = ["--kills", "20", "--methods", "moco_v2,mae", "--shapes", "evaluations", "--json", "figures.json"]
    done = subprocess.run([sys.executable, str(CAMPAIGN), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert {r["method"] for r in runs} == {"moco_v2", "mae"}
    assert sum(r["kills"] for r in runs) == 20
    assert sum(r["identical"] for r in runs) == sum(r["runs"] for r in runs) >= 2
    assert not any(r["unreadable"] or r["lost"] or r["torn"] for r in runs)
