"""The runs of a folder as rows of a table, and the metrics that are worth a column."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sslcli.evals.base.info import evaluator_info, evaluator_infos
from sslcli.evals.metrics.ranking import goodness
from sslcli.report.metric_text import format_metric, main_metric, sort_evaluations
from sslcli.report.run_contents import RunContents, mapping, number, read_run
from sslcli.runs import Record, records
from sslcli.runs.redact import redacted_overrides
from sslcli.runtime import folders

ONLINE = "online kNN"  # measured by the trainer, within the training split
MOST_COLUMNS = 10  # of metrics


@dataclass
class Row:
    """A job: its run, or its status and what it measured if it has none. `command`: pretrain, eval, ...; "" where unknown."""

    name: str
    keys: dict[str, str]  # of the overrides: key -> value
    state: str
    error: str = ""
    run: RunContents | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)  # the same with the digits that their intervals justify
    command: str = ""
    earlier: dict[str, str] = field(default_factory=dict)  # metrics of other weights than the run has now, as text


def read_rows(folder: Path) -> list[Row]:
    """All runs of a folder, and the jobs of a sweep that have none. A job of `resume=auto` may continue a run in another folder."""
    rows, seen = [], set()
    for job in records.jobs(folder):
        inside = (p.parent for p in folder.glob(f"{job['job']}_*/status.json") if not p.parent.is_symlink())
        run_folder = next(inside, None) or among_runs(job.get("run"))
        words = redacted_overrides(job["overrides"])
        if run_folder is None:
            row = Row(f"job {job['job']}", override_values(words), job["status"], job.get("error", ""))
            row.command = command_of(job, row.keys)
            row.numbers = records.numbers(job, "numbers")
            rows.append(row)
        elif run_folder.resolve() not in seen:
            seen.add(run_folder.resolve())
            rows.append(read_row(run_folder, words))
    for path in sorted(folder.glob("*/status.json")):
        if path.parent.resolve() not in seen and not path.parent.is_symlink():
            seen.add(path.parent.resolve())
            rows.append(read_row(path.parent, None))
    return rows


def command_of(job: Record, keys: dict[str, str]) -> str:
    """The command of a job; where the record is of an earlier version, an evaluation is known by its keys."""
    return str(job.get("command") or ("eval" if "evaluator" in keys and "run" in keys else ""))


def among_runs(named: str | None) -> Path | None:
    """The run that a job names, if it is below the runs folder: a sweep from an untrusted source cannot cause reads or writes
    elsewhere."""
    if named is None or not (Path(named) / "status.json").is_file():
        return None
    return Path(named) if Path(named).resolve().is_relative_to(folders.runs_root().resolve()) else None


def read_row(path: Path, words: list[str] | None) -> Row:
    run = read_run(path)
    row = Row(
        path.name,
        override_values(run.overrides if words is None else words),
        run.state,
        str(run.status.get("error") or ""),
        run,
    )
    for e in sort_evaluations(run.evals):
        for metric, by_kind in e.numbers.items():
            if "" not in by_kind:
                continue
            text = format_metric(e, metric, digits=4).partition(" ± ")[0]
            if e.outdated:  # neither ranked nor averaged
                row.earlier[f"{e.name}.{metric}"] = f"{text} ({e.step})"
                continue
            row.numbers[f"{e.name}.{metric}"] = by_kind[""][0]
            row.figures[f"{e.name}.{metric}"] = text
    online = mapping(run.status.get("online"))
    for key, name in (("knn/top1", ONLINE), ("rankme", "online RankMe")):
        if (value := number(online.get(key))) is not None:
            row.numbers[name] = value
    if loss := run.curve("train/loss"):
        row.numbers["train loss"] = loss[-1][1]
    return row


def override_values(words: list[str]) -> dict[str, str]:
    return {k.lstrip("+"): v for k, equals, v in (w.partition("=") for w in words) if equals and k != "resume"}


def main_column(columns: list[str]) -> str | None:
    """The metric by which runs are ordered: of the first evaluator that ranks runs, with all labels before few."""
    for info in evaluator_infos().values():
        for metric in info.metrics if info.ranks_runs else ():
            for column in columns:
                name, _, its_metric = column.rpartition(".")
                if (name.partition("@")[0], its_metric) == (info.name, metric):
                    return column
    return columns[0] if columns else None


def metric_columns(rows: list[Row]) -> list[str]:
    """The metrics in the table: the main one of each evaluation, and those of training."""
    names = list(dict.fromkeys(n for r in rows for n in (*r.numbers, *r.earlier)))
    mains = {f"{e.name}.{m}" for r in rows if r.run for e in r.run.evals if (m := main_metric(e))}
    kinds = {name.partition(".")[0] for r in rows if not r.run for name in r.numbers}
    usual = {kind: [f"{kind}.{metric}" for metric in evaluator_info(kind).metrics] for kind in kinds}
    mains |= {name for kind in kinds if (name := next((n for n in usual[kind] if n in names), ""))}
    run_metrics = [n for n in names if "." not in n]
    return [n for n in names if n in mains][: MOST_COLUMNS - len(run_metrics)] + run_metrics


def sort_key(value: float | None, name: str) -> float:
    """A sort key that is smaller where `value` is better."""
    return float("inf") if value is None else -goodness(name, value)
