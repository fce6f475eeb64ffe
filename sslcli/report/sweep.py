"""The page of a folder of runs: a table of all, best first, each linking to its own report, and means over seeds."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sslcli import console
from sslcli.errors import SslError
from sslcli.evals.base.info import evaluator_infos
from sslcli.evals.base.run_ranking import compare_runs
from sslcli.evals.metrics.ranking import goodness
from sslcli.report import results
from sslcli.report.gather import Gathered, gather, mapping, number
from sslcli.report.markup import Child, Html, el
from sslcli.runs import records
from sslcli.runs.listing import length_warning
from sslcli.runs.redact import masked_words
from sslcli.runtime import folders

ONLINE = "online kNN"  # what the trainer itself measured, within the training split
MOST_COLUMNS = 10  # of numbers


@dataclass
class Row:
    """A job: its run, or what became of it without one."""

    name: str
    keys: dict[str, str]  # of the overrides: key -> value
    state: str
    error: str = ""
    run: Gathered | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)  # the same with the digits that their intervals justify


def of_sweep(folder: Path, out: Path) -> str:
    from sslcli.report.page import page

    rows = gathered(folder)
    origin = made_by(folder, rows)
    swept = [k for k in dict.fromkeys(k for r in rows for k in r.keys) if len({r.keys.get(k) for r in rows}) > 1]
    columns = measured(rows)
    main = main_column(columns)
    if main is not None:
        rows.sort(key=lambda r: place(r.numbers.get(main), main))
    for row in rows:
        write_own(row)
    sections = [
        over_seeds(rows, swept, columns, main),
        table(rows, swept, columns, main, out),
        constant(rows, swept),
        origin,
    ]
    return page(f"Sweep {folder.name}", sections, top(folder, rows, swept, main))


def main_column(columns: list[str]) -> str | None:
    """The number by which runs are ordered: of the first evaluator that ranks runs, with all labels before few."""
    for info in evaluator_infos().values():
        for metric in info.metrics if info.ranks_runs else ():
            for column in columns:
                name, _, its_metric = column.rpartition(".")
                if (name.partition("@")[0], its_metric) == (info.name, metric):
                    return column
    return columns[0] if columns else None


def gathered(folder: Path) -> list[Row]:
    """All runs of a folder, and the jobs of a sweep that have none. A job of `resume=auto` may have found its run elsewhere."""
    rows, seen = [], set()
    for job in records.jobs(folder):
        inside = (p.parent for p in folder.glob(f"{job['job']}_*/status.json") if not p.parent.is_symlink())
        found = next(inside, None) or among_runs(job.get("run"))
        words = masked_words(job["overrides"])
        if found is None:
            rows.append(Row(f"job {job['job']}", keys_of(words), job["status"], job.get("error", "")))
        elif found.resolve() not in seen:
            seen.add(found.resolve())
            rows.append(row(found, words))
    for path in sorted(folder.glob("*/status.json")):
        if path.parent.resolve() not in seen and not path.parent.is_symlink():
            seen.add(path.parent.resolve())
            rows.append(row(path.parent, None))
    return rows


def among_runs(named: str | None) -> Path | None:
    """The run that a job names, where it is one of the user's: a sweep from elsewhere makes nothing be read or written
    anywhere else."""
    if named is None or not (Path(named) / "status.json").is_file():
        return None
    return Path(named) if Path(named).resolve().is_relative_to(folders.runs_root().resolve()) else None


def row(path: Path, words: list[str] | None) -> Row:
    run = gather(path)
    found = Row(
        path.name,
        keys_of(run.overrides if words is None else words),
        run.state,
        str(run.status.get("error") or ""),
        run,
    )
    for e in results.ordered(run.evals):
        for metric, by_kind in e.numbers.items():
            if "" in by_kind:
                found.numbers[f"{e.name}.{metric}"] = by_kind[""][0]
                found.figures[f"{e.name}.{metric}"] = results.figure_of(e, metric, digits=4).partition(" ± ")[0]
    online = mapping(run.status.get("online"))
    for key, name in (("knn/top1", ONLINE), ("rankme", "online RankMe")):
        if (value := number(online.get(key))) is not None:
            found.numbers[name] = value
    if loss := run.curve("train/loss"):
        found.numbers["train loss"] = loss[-1][1]
    return found


def keys_of(words: list[str]) -> dict[str, str]:
    return {k.lstrip("+"): v for k, equals, v in (w.partition("=") for w in words) if equals and k != "resume"}


def measured(rows: list[Row]) -> list[str]:
    """The numbers worth a column: the main one of each evaluation, and what every run has of itself."""
    names = list(dict.fromkeys(n for r in rows for n in r.numbers))
    mains = {f"{e.name}.{m}" for r in rows if r.run for e in r.run.evals if (m := results.main_number(e))}
    own = [n for n in names if "." not in n]
    return [n for n in names if n in mains][: MOST_COLUMNS - len(own)] + own


def place(value: float | None, name: str) -> float:
    """The best come first: a number that is smaller where `value` is better."""
    return float("inf") if value is None else -goodness(name, value)


def write_own(row: Row) -> None:
    """The run's own report, where there is none that is as new as what it is made of."""
    from sslcli.report import NAME, write

    if row.run is None:
        return
    path = row.run.path
    there = path / NAME
    parts = [path / "status.json", path / "metrics.jsonl", path / "encoder.json", *path.glob("eval/*.json")]
    newest = max((p.stat().st_mtime for p in parts if p.is_file()), default=0.0)
    if there.is_file() and there.stat().st_mtime >= newest:
        return
    console.say(f"report of {path.name}")
    try:
        write(path)
    except SslError as e:
        console.warn(f"{path.name} has no report: {e.message}", e.hint)


# ---------------------------------------------------------------------------------------------------------------- markup


def top(folder: Path, rows: list[Row], swept: list[str], main: str | None) -> Html:
    states: dict[str, int] = {}
    for r in rows:
        states[r.state] = states.get(r.state, 0) + 1
    counts = ", ".join(f"{n} {s}" for s, n in sorted(states.items()))
    best = next((r for r in rows if main in r.numbers), None) if main else None
    said = (
        f"Best by {label(main)}: {name_of(best, swept)}, {best.figures.get(main) or results.shown(best.numbers[main])}."
        if best and main
        else ""
    )
    runs = [(r, r.run.path) for r in rows if main in r.numbers and r.run is not None]
    if main and len(runs) > 1:
        (_, first), (other, second) = runs[:2]
        said += f" It is {compare_runs(first, second, main).words}: {name_of(other, swept)}."
    warn = "It was measured within the training split, while training." if main == ONLINE else ""
    return el(
        "div",
        el("p", "Sweep", class_="kicker"),
        el("h1", f"{len(rows)} runs" + (f" over {', '.join(swept)}" if swept else "")),
        el("p", f"{counts}; {folder.name}", class_="under"),
        el("p", f"{said} {warn}".strip()) if said else None,
        class_="top",
    )


def label(name: str) -> str:
    """`probe@5-class.top1` as `probe 5-class top1`."""
    return name.replace(".", " ").replace("@", " ")


def name_of(row: Row, swept: list[str]) -> str:
    return ", ".join(f"{k}={row.keys[k]}" for k in swept if k in row.keys) or row.name


def table(rows: list[Row], swept: list[str], columns: list[str], main: str | None, out: Path) -> Html:
    from sslcli.report.sections import section

    head = [el("th", "run", scope="col"), *(el("th", k, scope="col") for k in swept), el("th", "status", scope="col")]
    for c in columns:
        way = "ascending" if place(1, c) < place(2, c) else "descending"
        head.append(el("th", label(c), scope="col", class_="number", aria_sort=way if c == main else None))
    lengths = differing(rows)
    head += [el("th", name, scope="col", class_="number") for name in (*lengths, "seconds")]
    body = [el("tr", *cells(r, swept, columns, lengths, out)) for r in rows]
    found = el("table", el("thead", el("tr", *head)), el("tbody", *body), class_="sortable")
    said = length_warning([r.run.length for r in rows if r.run])
    note = el("p", f"{results.sentence(said)}.", class_="lead") if said else None
    made = section("runs", "All runs", note, results.scrolling(found, "all runs"))
    assert made is not None
    return made


def differing(rows: list[Row]) -> list[str]:
    """What of the length of training is not the same in all runs: steps, epochs, samples."""
    lengths = [r.run.length for r in rows if r.run]
    names = dict.fromkeys(name for found in lengths for name in found)
    return [name for name in names if len({found.get(name) for found in lengths}) > 1]


def cells(r: Row, swept: list[str], columns: list[str], lengths: list[str], out: Path) -> list[Child]:
    from sslcli.report import NAME

    linked: Child = r.name
    if r.run is not None and (r.run.path / NAME).is_file():
        way = os.path.relpath((r.run.path / NAME).absolute(), out.absolute().parent)
        linked = el("a", r.name, href=quote(way.replace(os.sep, "/")))
    seconds = number(r.run.status.get("seconds")) if r.run else None
    found: list[Child] = [el("th", linked, scope="row"), *(el("td", r.keys.get(k, "")) for k in swept)]
    found.append(el("td", r.state + (f": {r.error}" if r.error else "")))
    trained = [r.run.length.get(name) if r.run else None for name in lengths]
    for value, text in [
        *((r.numbers.get(c), r.figures.get(c)) for c in columns),
        *((value, None if value is None else f"{value:,.6g}") for value in trained),
        (seconds, f"{seconds:,.1f}" if seconds else None),
    ]:
        said = "" if value is None else text or results.shown(value, digits=4)
        found.append(el("td", said, class_="number", data_value="" if value is None else repr(float(value))))
    return found


def over_seeds(rows: list[Row], swept: list[str], columns: list[str], main: str | None) -> Html | None:
    """Configurations that differ in nothing but the seed, as one line: mean and standard deviation (n - 1)."""
    from sslcli.report.sections import section

    if "seed" not in swept:
        return None
    others = [k for k in swept if k != "seed"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for r in rows:
        if r.numbers:
            groups.setdefault(tuple(r.keys.get(k, "") for k in others), []).append(r)
    if not any(len(g) > 1 for g in groups.values()):
        return None
    lines: list[tuple[float, Html]] = []
    for key, group in groups.items():
        found = [el("td", k) for k in key] + [el("td", str(len(group)), class_="number", data_value=len(group))]
        rank = float("inf")
        for c in columns:
            values = [r.numbers[c] for r in group if c in r.numbers]
            mean = statistics.fmean(values) if values else None
            said = (
                results.shown(mean, statistics.stdev(values) if len(values) > 1 else None) if mean is not None else ""
            )
            found.append(el("td", said, class_="number", data_value="" if mean is None else repr(mean)))
            rank = place(mean, c) if c == main else rank
        lines.append((rank, el("tr", *found)))
    head = [*(el("th", k, scope="col") for k in others), el("th", "seeds", scope="col", class_="number")]
    head += [el("th", label(c), scope="col", class_="number") for c in columns]
    body = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    found_table = el("table", el("thead", el("tr", *head)), el("tbody", *body), class_="sortable")
    note = el("p", "Mean and standard deviation (n - 1) over training seeds.", class_="lead")
    return section("seeds", "Over seeds", note, results.scrolling(found_table, "means over seeds"))


def constant(rows: list[Row], swept: list[str]) -> Html | None:
    """What all have in common."""
    from sslcli.report.sections import section

    same = {k: v for k, v in rows[0].keys.items() if k not in swept} if rows else {}
    pairs = [el("div", el("dt", k), el("dd", v)) for k, v in same.items()]
    return section("common", "Common to all", el("dl", *pairs, class_="card") if pairs else None)


def made_by(folder: Path, rows: list[Row]) -> Html | None:
    import shlex

    from sslcli.report import typed
    from sslcli.report.sections import command, section

    values: dict[str, list[str]] = {}
    for r in rows:
        for k, v in r.keys.items():
            if v not in values.setdefault(k, []):
                values[k].append(v)
    if not (folder / "jobs").is_dir():
        return None
    word = next((r.run.word for r in rows if r.run), "pretrain")
    line = shlex.join(["sslcli", word, "-m", *(f"{k}={','.join(v)}" for k, v in values.items())])
    return section("commands", "Made by", command(f"{line}\nsslcli runs report {shlex.quote(typed(folder))}"))
