"""sslcli runs [list | show RUN | best METRIC | compare RUN RUN | report]: reads run folders, without torch or Hydra."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import Request, subcommand_of
from sslcli.cli.command_table import COMMANDS
from sslcli.config import Config
from sslcli.errors import RequestError, listing
from sslcli.evals.metrics import interval
from sslcli.runs import Record
from sslcli.runs.find import find, run_command, short_name
from sslcli.runs.listing import (
    UNFINISHED,
    evaluate_again,
    format_length,
    resumptions,
    summarize,
    summarize_all,
    sweep_job,
    training_length,
)
from sslcli.runs.run import Run
from sslcli.runtime import folders

HEADLINES = ("top1", "nmi", "auroc", ".r2", ".ndcg@10", ".ndcg_masked@10")  # the metrics that the list shows
ERROR_WIDTH = 60  # characters of an error in the list


def main(request: Request) -> int:
    request.positional = request.positional or ["list"]
    name = subcommand_of(request, COMMANDS["runs"])
    arguments = request.positional[1:]
    if name in ("compare", "report"):
        return import_module(f"sslcli.cli.commands.{name}").main(arguments, request.overrides)
    if request.overrides:
        raise RequestError(f"unexpected argument '{request.overrides[0]}' of sslcli runs {name}", "sslcli runs --help")
    if name == "list":
        return print_list()
    if name == "show":
        return print_run(arguments[0])
    count = request.value_of("-n") or "10"
    if not count.isdigit() or int(count) < 1:
        raise RequestError(f"-n {count}: expected a positive integer")
    return print_best(arguments[0], int(count))


def print_list() -> int:
    summaries = summarize_all()
    if console.flag(console.JSON):
        console.out_json({"runs": summaries})
        return 0
    if not summaries:
        console.say(f"no run in {folders.runs_root()}/ yet; sslcli pretrain creates one")
        return 0
    body = [[short_name(Path(r["run"])), r["status"], f"{r['step'] or 0:,}", headline(r)] for r in summaries]
    console.out(*console.table(["run", "status", "step", "metrics"], body, numbers=[2]))
    return 0


def headline(summary: Record) -> str:
    """The main metrics of a run on one line, or the beginning of its error."""
    metrics = {k: v for k, v in summary["numbers"].items() if k.count(".") == 1 and k.endswith(HEADLINES)}
    metrics = metrics or {f"online {k}": v for k, v in summary["online"].items() if k.endswith("top1")}
    shown = interval.format_metrics(metrics, summary["intervals"])
    cells = [f"{k} {v}" for k, v in shown.items()]
    cells += [text for k, text in earlier_metrics(summary).items() if k.count(".") == 1 and k.endswith(HEADLINES)]
    return "  ".join(cells) or (summary["error"] or "")[:ERROR_WIDTH]


def earlier_metrics(summary: Record) -> dict[str, str]:
    """`probe.top1` -> `probe.top1 0.41 (step 22, other weights)`: metrics of other weights than the run has now."""
    earlier = summary["earlier"]
    shown = interval.format_metrics(earlier["numbers"], earlier["intervals"])
    return {k: f"{k} {v} ({format_step(earlier['steps'][k])}other weights)" for k, v in shown.items()}


def format_step(step: int | None) -> str:
    return "" if step is None else f"step {step:,}, "


def print_run(name: str) -> int:
    path = find(name)
    run, summary = Run(path), summarize(path)
    status = run.status
    cfg = run.config if (path / "config.yaml").exists() else {}  # the process may have ended before it was written
    if console.flag(console.JSON):
        extra = {"sweep": sweep_job(path), "resumed": resumptions(path)}
        console.out_json({**summary, **extra, "status_file": status, "config": cfg})
        return 0
    print_history(path, summary, cfg, status)
    metrics = {**{f"online {k}": v for k, v in summary["online"].items()}, **summary["numbers"]}
    for key, value in interval.format_metrics(metrics, summary["intervals"]).items():
        console.out(f"{key} {value}")
    outdated = earlier_metrics(summary)
    console.out(*outdated.values())
    if outdated:
        names = [result["name"] for result in summary["results"] if result["outdated"]]
        console.warn(
            f"{listing(names)}: measured before the weights changed",
            evaluate_again(summary, names[0]),
        )
    for key, (low, high) in summary["intervals"].items():
        if key.count(".") == 1:  # of the run, not of its baselines
            console.say(f"{key.removesuffix(interval.SUFFIX)} 95 % interval {interval.format_interval(low, high)}")
    if summary["status"] in ("lost", "interrupted"):
        console.say(f"next  {run_command(path, 'resume', short_name(path))}")
    return 0


def print_history(path: Path, summary: Record, cfg: Config, status: Record) -> None:
    """When, with what and how long a run trained."""
    error = f": {summary['error']}" if summary["error"] else ""
    length = training_length(status.get("step"), cfg, Run(path).metrics)
    versions = ", ".join(f"{k} {v}" for k, v in status.get("packages", {}).items())
    console.out(
        f"run     {summary['run']}",
        f"status  {summary['status']}{error}",
        f"step    {summary['step']}" + (f" ({format_length(length)})" if len(length) > 1 else ""),
        f"time    {console.human_time(summary['seconds'] or 0)}",
        f"created {summary['created']} with sslcli {status.get('sslcli')}, {versions}",
    )
    if sweep := sweep_job(path):
        console.out(f"sweep   {sweep['folder']}, job {sweep['job']}: {' '.join(sweep['overrides'])}")
    for event in resumptions(path):
        console.out(f"resumed {event['time']} at step {event['step']}")


def print_best(metric: str, count: int) -> int:
    from sslcli.evals.base.run_ranking import compare_runs, on_other_data, rank_runs

    metric = metric.replace("/", ".")
    rows, earlier = rank_runs(metric)
    against = compare_runs(Path(rows[0]["run"]), Path(rows[1]["run"]), metric) if len(rows) > 1 else None
    rows = rows[:count]
    if console.flag(console.JSON):
        comparison = against and asdict(against)
        console.out_json({"metric": metric, "runs": rows, "not_ranked": earlier, "first_against_next": comparison})
        return 0
    for row in rows:
        mark = f"  (unfinished: {row['status']})" if row["status"] in UNFINISHED else ""
        console.out(f"{interval.format_metrics(row['numbers'], row['intervals'])[metric]}  {find(row['run'])}{mark}")
    if others := on_other_data(rows, metric):
        names = listing([short_name(Path(path)) for path in others], 3)
        console.warn(f"measured on other data than the first, so that they do not compare: {names}")
    for row in earlier:
        console.say(f"not ranked: {short_name(Path(row['run']))}: {earlier_metrics(row)[metric]}")
    if against is not None:
        console.say(f"the first is {against.words}")
    return 0
