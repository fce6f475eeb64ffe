"""Summaries of runs, read from their files alone: state, metrics, length of training."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sslcli.runs import Record, records
from sslcli.runs.files import open_file, read_json
from sslcli.runs.find import all_runs, run_command, short_name
from sslcli.runs.run import Run

UNFINISHED = ("running", "interrupted", "failed", "lost")  # states of a run
STALE = 1800.0  # seconds without a heartbeat after which a run on another machine counts as lost


def summarize_all() -> list[Record]:
    return [summarize(p) for p in all_runs()]


def summarize(path: Path) -> Record:
    """What `runs --json` prints of a run."""
    run = Run(path)
    status = run.status
    results = run.results
    current = {name: e.record for name, e in results.items() if not e.outdated}
    earlier = {name: e.record for name, e in results.items() if e.outdated}
    return {
        "run": str(path),
        "status": run_state(path, status),
        "step": status.get("step"),
        "created": status.get("created"),
        "seconds": status.get("seconds"),
        "numbers": by_metric(current, "numbers"),
        "intervals": by_metric(current, "intervals"),
        "earlier": {  # results of other weights than the run has now
            "numbers": by_metric(earlier, "numbers"),
            "intervals": by_metric(earlier, "intervals"),
            "steps": {f"{name}.{k}": e.get("step") for name, e in earlier.items() for k in e.get("numbers", {})},
        },
        "results": [
            {
                "name": e.name,
                "evaluator": e.evaluator,
                "labels": e.labels,
                "dataset": e.dataset or None,
                "step": e.step,
                "outdated": e.outdated,
            }
            for e in results.values()
        ],
        "online": status.get("online", {}),
        "error": status.get("error"),
    }


def by_metric(results: Mapping[str, Record], key: str) -> Record:
    """`probe.top1` -> its value, of the mappings `key` of several results."""
    return {f"{name}.{k}": v for name, record in results.items() for k, v in record.get(key, {}).items()}


def evaluate_again(summary: Record, metric: str) -> str:
    """The command that computes a result of a summary, such as `probe@5-class`, with the current weights. `metric` may also be the
    beginning of a metric of that result."""
    names = (r for r in summary["results"] if metric == r["name"] or metric.startswith(f"{r['name']}."))
    result = next(names, {"evaluator": "probe", "labels": "all", "dataset": None})
    labels = [f"labels={result['labels']}"] if result["labels"] != "all" else []
    data = [f"dataset={result['dataset']}"] if result["dataset"] else []
    path = Path(summary["run"])
    return run_command(path, "eval", result["evaluator"], f"run={short_name(path)}", *data, *labels)


def run_state(path: Path, status: Record) -> str:
    """The status, and `lost` for a run whose status is `running` while no process holds its lock.

    A file system of several machines may not carry locks from one to another: a run of another machine is lost only when it
    has written no heartbeat for `STALE` seconds."""
    state = str(status.get("status", "unknown"))
    if state != "running" or is_locked(path):
        return state
    here = status.get("host") == socket.gethostname()
    return "lost" if here or seconds_since(str(status.get("heartbeat", ""))) > STALE else state


def is_locked(path: Path) -> bool:
    """Whether a process of this machine (or, where the file system shares locks, of another) holds the run's lock."""
    import fcntl

    try:
        with os.fdopen(open_file(path, ".lock", os.O_RDWR), "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def seconds_since(stamp: str) -> float:
    """Seconds since an ISO 8601 time stamp; inf where it is none."""
    try:
        return time.time() - datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return math.inf


def training_length(step: Any, config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How long a run trained: `steps` of the optimizer, `epochs`, `samples` seen; unknown values are omitted."""
    length: dict[str, float] = {"steps": step} if isinstance(step, (int, float)) else {}
    if (epoch := next((line["epoch"] for line in reversed(metrics) if "epoch" in line), None)) is not None:
        length["epochs"] = round(epoch, 2)
    train = config.get("train")
    batch = train.get("batch_size") if isinstance(train, dict) else None
    if length and isinstance(batch, int):
        length["samples"] = length["steps"] * batch
    return length


def format_length(length: Mapping[str, float]) -> str:
    """`990 steps, 90 epochs, 126,720 samples`."""
    return ", ".join(
        f"{value:,.4g} {name}" if name == "epochs" else f"{value:,.0f} {name}" for name, value in length.items()
    )


def length_warning(lengths: Sequence[Mapping[str, float]]) -> str:
    """A warning where runs were trained for different lengths (with equal time budgets, for example); else ""."""
    different = [name for name in ("steps", "samples") if len({length.get(name) for length in lengths}) > 1]
    if not different:
        return ""
    return f"the runs were trained for different numbers of {' and '.join(different)}: differences may be due to the length"


def sweep_job(path: Path) -> Record | None:
    """The sweep that started a run: its folder, the number and the overrides of the job."""
    job = records.job(path.parent, path.name.partition("_")[0])
    return {"folder": str(path.parent), "job": job["job"], "overrides": job["overrides"]} if job else None


def resumptions(path: Path) -> list[Record]:
    """When and where a run was resumed."""
    return [e for e in records.events(path) if e.get("event") == "resumed" and {"time", "step"} <= e.keys()]


WITHOUT_LABELS = {"interactions": "recommend"}  # by the kind of data, where it is not quality
OWN_EVALUATORS = {"pairs": "zeroshot", "items": "recommend"}  # by what a method requires


def next_step(run: Run) -> str:
    """The command that evaluates a run: the evaluator of its method, a probe, or without labels an evaluator that needs none."""
    encoder = read_json(run.path, "encoder.json")
    facts = encoder.get("facts")
    unlabelled = isinstance(facts, dict) and facts.get("classes") == 0
    method = run.config.get("method")
    required = method.get("requires") if isinstance(method, dict) else None
    own = next((name for word, name in OWN_EVALUATORS.items() if isinstance(required, list) and word in required), None)
    without = WITHOUT_LABELS.get(str(encoder.get("modality")), "quality")
    return run_command(run.path, "eval", own or (without if unlabelled else "probe"), f"run={short_name(run.path)}")
