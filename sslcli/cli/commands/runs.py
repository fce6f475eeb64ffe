"""sslcli runs [list | show RUN | best METRIC]: what the run folders say, from their files alone."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request
from sslcli.errors import RequestError, command, nearest
from sslcli.evals.base.run_ranking import compare_runs, rank_runs
from sslcli.evals.metrics import interval
from sslcli.runs.find import find, short_name
from sslcli.runs.listing import format_length, resumptions, summarize, summarize_all, sweep_job, training_length
from sslcli.runs.run import Run
from sslcli.runtime import folders


def main(request: Request) -> int:
    verb, *rest = request.positional or ["list"]
    if verb in ("list", "show", "best") and request.overrides:
        raise RequestError(f"runs {verb} takes no {request.overrides[0]}", "sslcli runs --help")
    if verb == "list" and not rest:
        return show_list()
    if verb == "show" and len(rest) == 1:
        return show_one(rest[0])
    if verb == "best" and len(rest) == 1:
        names = request.value_of("-n") or "10"
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


def show_list() -> int:
    found = summarize_all()
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
    path = find(spec)
    row = summarize(path)
    status = Run(path).status
    cfg = Run(path).config if (path / "config.yaml").exists() else {}  # a process may end before it is written
    if console.flag(console.JSON):
        extra = {"sweep": sweep_job(path), "resumed": resumptions(path)}
        console.out_json({**row, **extra, "status_file": status, "config": cfg})
        return 0
    versions = ", ".join(f"{k} {v}" for k, v in status.get("packages", {}).items())
    console.out(f"run     {row['run']}", f"status  {row['status']}" + (f": {row['error']}" if row["error"] else ""))
    trained = training_length(status.get("step"), cfg, Run(path).metrics)
    console.out(
        f"step    {row['step']}" + (f" ({format_length(trained)})" if len(trained) > 1 else ""),
        f"time    {console.human_time(row['seconds'] or 0)}",
        f"made    {row['created']} with sslcli {status.get('sslcli')}, {versions}",
    )
    if sweep := sweep_job(path):
        console.out(f"sweep   {sweep['folder']}, job {sweep['job']}: {' '.join(sweep['overrides'])}")
    for event in resumptions(path):
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


def best(metric: str, count: int) -> int:
    metric = metric.replace("/", ".")
    rows = rank_runs(metric)
    against = compare_runs(Path(rows[0]["run"]), Path(rows[1]["run"]), metric) if len(rows) > 1 else None
    rows = rows[:count]
    if console.flag(console.JSON):
        console.out_json({"metric": metric, "runs": rows, "first_against_next": against and asdict(against)})
    else:
        said = [interval.of_lines(r["numbers"], r["intervals"])[metric] for r in rows]
        console.out(*(f"{value}  {find(r['run'])}" for value, r in zip(said, rows, strict=True)))
        if against is not None:
            console.say(f"the first is {against.words}")
    return 0
