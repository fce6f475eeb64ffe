"""sslcli runs [list | show RUN | best METRIC]: what the run folders say, from their files alone."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.main import Request
from sslcli.errors import RequestError, command, listing, nearest
from sslcli.evals.metrics import interval
from sslcli.evals.metrics.ranking import goodness
from sslcli.runs.run import short_name
from sslcli.runtime import folders

if TYPE_CHECKING:
    from sslcli.evals.metrics.paired import Separation

STALE = 1800.0  # seconds without a sign of life after which a run of another machine counts as lost


def main(request: Request) -> int:
    verb, *rest = request.words or ["list"]
    if verb in ("list", "show", "best") and request.overrides:
        raise RequestError(f"runs {verb} takes no {request.overrides[0]}", "sslcli runs --help")
    if verb == "list" and not rest:
        return show_list()
    if verb == "show" and len(rest) == 1:
        return show_one(rest[0])
    if verb == "best" and len(rest) == 1:
        names = request.flags[request.flags.index("-n") + 1] if "-n" in request.flags else "10"
        if not names.isdigit() or int(names) < 1:
            raise RequestError(f"-n {names} is no number of runs")
        return best(rest[0], int(names))
    if verb == "compare":
        return import_module("sslcli.cli.commands.compare").main(rest, request.overrides)
    if verb == "report":
        return import_module("sslcli.cli.commands.report").main(rest, request.overrides)
    if verb in ("show", "best"):
        raise RequestError(
            f"runs {verb} what?", "sslcli runs show RUN" if verb == "show" else "sslcli runs best probe.top1"
        )
    close = nearest(verb, ("list", "show", "best", "compare", "report"))
    raise RequestError(
        f"runs cannot `{verb}`",
        f"did you mean `sslcli runs {close}`?" if close else "list, show RUN, best METRIC, compare A B, report RUN",
    )


def summary(path: Path) -> dict[str, Any]:
    from sslcli.runs.run import Run

    run = Run(path)
    status = run.status
    found = run.kept
    numbers = {f"{name}.{k}": v for name, e in found.items() for k, v in e.record.get("numbers", {}).items()}
    return {
        "run": str(path),
        "status": state(path, status),
        "step": status.get("step"),
        "created": status.get("created"),
        "seconds": status.get("seconds"),
        "numbers": numbers,
        "intervals": {f"{name}.{k}": v for name, e in found.items() for k, v in e.record.get("intervals", {}).items()},
        "results": [
            {"name": e.name, "evaluator": e.evaluator, "labels": e.labels, "dataset": e.dataset or None}
            for e in found.values()
        ],
        "online": status.get("online", {}),
        "error": status.get("error"),
    }


def length(step: Any, config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How long a run trained: `steps` of the optimizer, `epochs`, `samples` seen; what is not known is left out."""
    found: dict[str, float] = {"steps": step} if isinstance(step, (int, float)) else {}
    if (epoch := next((line["epoch"] for line in reversed(metrics) if "epoch" in line), None)) is not None:
        found["epochs"] = round(epoch, 2)
    train = config.get("train")
    batch = train.get("batch_size") if isinstance(train, dict) else None
    if found and isinstance(batch, int):
        found["samples"] = found["steps"] * batch
    return found


def length_words(found: Mapping[str, float]) -> str:
    """`990 steps, 90 epochs, 126,720 samples`."""
    return ", ".join(
        f"{value:,.4g} {name}" if name == "epochs" else f"{value:,.0f} {name}" for name, value in found.items()
    )


def unequal(lengths: Sequence[Mapping[str, float]]) -> str:
    """What is said where runs trained for different lengths (at equal time, say); "" where they did not."""
    differ = [n for n in ("steps", "samples") if len({found.get(n) for found in lengths}) > 1]
    return (
        f"the runs made different numbers of {' and '.join(differ)}: a difference may be that of the length"
        if differ
        else ""
    )


def state(path: Path, status: dict[str, Any]) -> str:
    """The status, and `lost` for a run that says it is running while nobody holds its lock.

    A file system of several machines may not carry locks from one to another: a run of another machine is lost only when it
    has given no sign of life for a while."""
    from sslcli.runs.run import age

    said = str(status.get("status", "unknown"))
    if said != "running" or _alive(path):
        return said
    here = status.get("host") == socket.gethostname()
    return "lost" if here or age(str(status.get("heartbeat", ""))) > STALE else said


def _alive(path: Path) -> bool:
    """Whether a process of this machine (or, where the file system tells, of another) holds the run's lock."""
    import fcntl
    import os

    from sslcli.runs.files import open_file

    try:
        with os.fdopen(open_file(path, ".lock", os.O_RDWR), "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def gather() -> list[dict[str, Any]]:
    from sslcli.runs.run import all_runs

    return [summary(p) for p in all_runs()]


def show_list() -> int:
    found = gather()
    if console.flag(console.JSON):
        console.out_json({"runs": found})
        return 0
    if not found:
        console.say(f"no run in {folders.runs_root()}/ yet; sslcli pretrain makes one")
        return 0
    body = [[short_name(Path(r["run"])), r["status"], f"{r['step'] or 0:,}", headline(r)] for r in found]
    console.out(*console.table(["run", "status", "step", "numbers"], body, numbers=[2]))
    return 0


def headline(row: dict[str, Any]) -> str:
    tops = {k: v for k, v in row["numbers"].items() if k.count(".") == 1 and k.endswith(("top1", "nmi", "auroc"))}
    tops = tops or {f"online {k}": v for k, v in row["online"].items() if k.endswith("top1")}
    said = interval.of_lines(tops, row["intervals"])
    return "  ".join(f"{k} {v}" for k, v in said.items()) or (row["error"] or "")[:60]


def show_one(spec: str) -> int:
    from sslcli.runs.run import Run, find

    path = find(spec)
    row = summary(path)
    status = Run(path).status
    cfg = Run(path).config if (path / "config.yaml").exists() else {}  # a process may end before it is written
    if console.flag(console.JSON):
        extra = {"sweep": sweep_of(path), "resumed": resumed(path)}
        console.out_json({**row, **extra, "status_file": status, "config": cfg})
        return 0
    versions = ", ".join(f"{k} {v}" for k, v in status.get("packages", {}).items())
    console.out(f"run     {row['run']}", f"status  {row['status']}" + (f": {row['error']}" if row["error"] else ""))
    trained = length(status.get("step"), cfg, Run(path).metrics)
    console.out(
        f"step    {row['step']}" + (f" ({length_words(trained)})" if len(trained) > 1 else ""),
        f"time    {console.human_time(row['seconds'] or 0)}",
        f"made    {row['created']} with sslcli {status.get('sslcli')}, {versions}",
    )
    if sweep := sweep_of(path):
        console.out(f"sweep   {sweep['folder']}, job {sweep['job']}: {' '.join(sweep['overrides'])}")
    for event in resumed(path):
        console.out(f"resumed {event['time']} at step {event['step']}")
    numbers = {**{f"online {k}": v for k, v in row["online"].items()}, **row["numbers"]}
    for key, value in interval.of_lines(numbers, row["intervals"]).items():
        console.out(f"{key} {value}")
    for key, (low, high) in row["intervals"].items():
        if key.count(".") == 1:  # of the run itself
            console.say(f"{key.removesuffix(interval.SUFFIX)} 95 % interval {interval.between(low, high)}")
    if row["status"] in ("lost", "interrupted"):
        console.say(f"next  {command('resume', short_name(path))}")
    return 0


def sweep_of(path: Path) -> dict[str, Any] | None:
    """The sweep that a run was made by: its folder, the number and the overrides of the job."""
    from sslcli.runs import records

    job = records.job(path.parent, path.name.partition("_")[0])
    return {"folder": str(path.parent), "job": job["job"], "overrides": job["overrides"]} if job else None


def resumed(path: Path) -> list[dict[str, Any]]:
    """When a run went on, and where."""
    from sslcli.runs import records

    return [e for e in records.events(path) if e.get("event") == "resumed" and {"time", "step"} <= e.keys()]


def best(metric: str, count: int) -> int:
    from sslcli.runs.run import find

    metric = metric.replace("/", ".")
    rows = [r for r in gather() if isinstance(r["numbers"].get(metric), (int, float))]
    if not rows:
        known = sorted({k for r in gather() for k in r["numbers"]})
        close = nearest(metric, known)
        raise RequestError(
            f"no run has a number `{metric}`",
            f"did you mean `{close}`?"
            if close
            else f"there are {listing(known)}"
            if known
            else "sslcli eval probe makes some",
        )
    rows = sorted(rows, key=lambda r: goodness(metric, r["numbers"][metric]), reverse=True)
    against = separated(rows, metric) if len(rows) > 1 else None
    rows = rows[:count]
    if console.flag(console.JSON):
        console.out_json({"metric": metric, "runs": rows, "first_against_next": against and asdict(against)})
    else:
        said = [interval.of_lines(r["numbers"], r["intervals"])[metric] for r in rows]
        console.out(*(f"{value}  {find(r['run'])}" for value, r in zip(said, rows, strict=True)))
        if against is not None:
            console.say(f"the first is {against.words}")
    return 0


def separated(rows: list[dict[str, Any]], metric: str) -> Separation:
    """Whether the first of ranked runs is distinguishable from the next."""
    from sslcli.evals.metrics.paired import separation
    from sslcli.runs.results import holding

    first, second = (holding(Path(row["run"]), metric) for row in rows[:2])
    return separation(first[0], second[0], first[1])
