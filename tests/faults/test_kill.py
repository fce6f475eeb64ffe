"""Twenty SIGKILLs at random times: all files are readable, and every resumed run is bit-identical. See benchmarks/ for more."""

from __future__ import annotations

import json


def test_run_survives_twenty_kills(zygote, tmp_path):
    words = ["--kills", "20", "--methods", "moco_v2,mae", "--shapes", "short", "--json", "figures.json"]
    log = tmp_path / "log.txt"
    assert zygote.run(words, tmp_path, log, module="kill_campaign") == 0, log.read_text()
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert {r["method"] for r in runs} == {"moco_v2", "mae"}
    assert sum(r["kills"] for r in runs) == 20
    assert sum(r["identical"] for r in runs) == sum(r["runs"] for r in runs) >= 2
    assert not any(r["unreadable"] or r["lost"] or r["torn"] for r in runs)
