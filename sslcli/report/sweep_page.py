"""The page of a folder of runs: a table of all, best first, each linking to its own report, and means over seeds."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from urllib.parse import quote

from sslcli import console
from sslcli.config.overrides import as_typed
from sslcli.console import plural
from sslcli.errors import SslError, command
from sslcli.evals.base.run_ranking import compare_runs
from sslcli.report.html.elements import capitalize, command_block, scrolling_table, section
from sslcli.report.html.markup import Child, Html, el
from sslcli.report.html.page import page
from sslcli.report.metric_text import format_value
from sslcli.report.run_contents import number
from sslcli.report.run_page import NAME, write_run
from sslcli.report.sweep_rows import ONLINE, Row, main_column, metric_columns, read_rows, sort_key
from sslcli.runs.find import run_command, short_name
from sslcli.runs.listing import length_warning


def render_sweep(folder: Path, out: Path) -> str:

    rows = read_rows(folder)
    origin = sweep_command(folder, rows)
    swept = [k for k in dict.fromkeys(k for r in rows for k in r.keys) if len({r.keys.get(k) for r in rows}) > 1]
    columns = metric_columns(rows)
    main = main_column(columns)
    if main is not None:
        rows.sort(key=lambda r: sort_key(r.numbers.get(main), main))
    for row in rows:
        write_run_if_stale(row)
    sections = [
        over_seeds(rows, swept, columns, main),
        table(rows, swept, columns, main, out),
        constant(rows, swept),
        origin,
    ]
    return page(f"Sweep {folder.name}", sections, header(folder, rows, swept, main))


def write_run_if_stale(row: Row) -> None:
    """Writes the report of a run where it is missing or older than the files that it shows."""

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
        write_run(path)
    except SslError as e:
        console.warn(f"{path.name} has no report: {e.message}", e.hint)


# ---------------------------------------------------------------------------------------------------------------- markup


def header(folder: Path, rows: list[Row], swept: list[str], main: str | None) -> Html:
    states: dict[str, int] = {}
    for r in rows:
        states[r.state] = states.get(r.state, 0) + 1
    counts = ", ".join(f"{n} {s}" for s, n in sorted(states.items()))
    summary = ""
    if main:
        summary = best_over_seeds(rows, swept, main) or best_run(rows, swept, main)
    warn = "It was measured within the training split, while training." if main == ONLINE else ""
    return el(
        "div",
        el("p", "Sweep", class_="kicker"),
        el(
            "h1",
            f"{len(rows)} {'evaluations' if is_evaluation(rows) else 'runs'}"
            + (f" over {', '.join(swept)}" if swept else ""),
        ),
        el("p", f"{counts}; {folder.name}", class_="under"),
        el("p", f"{summary} {warn}".strip()) if summary else None,
        class_="top",
    )


def best_run(rows: list[Row], swept: list[str], main: str) -> str:
    """The best run, and whether it is distinguishable from the next. `rows`: best first."""
    best = next((r for r in rows if main in r.numbers), None)
    if best is None:
        return ""
    summary = (
        f"Best by {label(main)}: {name_of(best, swept)}, {best.figures.get(main) or format_value(best.numbers[main])}."
    )
    runs = [(r, r.run.path) for r in rows if main in r.numbers and r.run is not None]
    if len(runs) > 1:
        (_, first), (other, second) = runs[:2]
        summary += f" It is {compare_runs(first, second, main).words}: {name_of(other, swept)}."
    return summary


def best_over_seeds(rows: list[Row], swept: list[str], main: str) -> str:
    """The best configuration by its mean over seeds, beside the next: the best single run is the luckiest one. "" where no
    configuration has several seeds."""
    means = [
        (key, [r.numbers[main] for r in group if main in r.numbers]) for key, group in seed_groups(rows, swept).items()
    ]
    means = sorted(((k, v) for k, v in means if v), key=lambda pair: sort_key(statistics.fmean(pair[1]), main))
    if not means:
        return ""
    others = [k for k in swept if k != "seed"]
    texts = []
    for key, values in means[:2]:
        name = ", ".join(f"{k}={v}" for k, v in zip(others, key, strict=True))
        spread = statistics.stdev(values) if len(values) > 1 else None
        texts.append(
            f"{name}{', ' if name else ''}{format_value(statistics.fmean(values), spread)} ({plural(len(values), 'seed')})"
        )
    if not others:
        return f"{capitalize(label(main))}, mean and standard deviation: {texts[0]}."
    return f"Best by the mean of {label(main)} over seeds: {texts[0]}." + (f" Next: {texts[1]}." if texts[1:] else "")


def is_evaluation(rows: list[Row]) -> bool:
    """Whether the jobs evaluated runs instead of training them."""
    return bool(rows) and all(r.command == "eval" for r in rows)


def label(name: str) -> str:
    """`probe@5-class.top1` as `probe 5-class top1`."""
    return name.replace(".", " ").replace("@", " ")


def name_of(row: Row, swept: list[str]) -> str:
    return ", ".join(f"{k}={row.keys[k]}" for k in swept if k in row.keys) or row.name


def table(rows: list[Row], swept: list[str], columns: list[str], main: str | None, out: Path) -> Html:

    head = [el("th", "run", scope="col"), *(el("th", k, scope="col") for k in swept), el("th", "status", scope="col")]
    for c in columns:
        way = "ascending" if sort_key(1, c) < sort_key(2, c) else "descending"
        head.append(el("th", label(c), scope="col", class_="number", aria_sort=way if c == main else None))
    lengths = differing(rows)
    head += [el("th", name, scope="col", class_="number") for name in (*lengths, "seconds")]
    body = [el("tr", *cells(r, swept, columns, lengths, out)) for r in rows]
    body_table = el("table", el("thead", el("tr", *head)), el("tbody", *body), class_="sortable")
    warnings = [length_warning([r.run.length for r in rows if r.run])]
    if any(r.earlier for r in rows):
        warnings.append(
            "values with a step in brackets are of other weights than the run has now: they are not compared"
        )
    texts = [f"{capitalize(warning)}." for warning in warnings if warning]
    note = el("p", " ".join(texts), class_="lead") if texts else None
    runs_section = section("runs", "All runs", note, scrolling_table(body_table, "all runs"))
    assert runs_section is not None
    return runs_section


def differing(rows: list[Row]) -> list[str]:
    """Measures of the length of training that differ between runs: steps, epochs, samples."""
    lengths = [r.run.length for r in rows if r.run]
    names = dict.fromkeys(name for length in lengths for name in length)
    return [name for name in names if len({length.get(name) for length in lengths}) > 1]


def cells(r: Row, swept: list[str], columns: list[str], lengths: list[str], out: Path) -> list[Child]:

    linked: Child = r.name
    if r.run is not None and (r.run.path / NAME).is_file():
        way = os.path.relpath((r.run.path / NAME).absolute(), out.absolute().parent)
        linked = el("a", r.name, href=quote(way.replace(os.sep, "/")))
    seconds = number(r.run.status.get("seconds")) if r.run else None
    row_cells: list[Child] = [el("th", linked, scope="row"), *(el("td", r.keys.get(k, "")) for k in swept)]
    row_cells.append(el("td", r.state + (f": {r.error}" if r.error else "")))
    trained = [r.run.length.get(name) if r.run else None for name in lengths]
    for value, text in [
        *((r.numbers.get(c), r.figures.get(c) or r.earlier.get(c)) for c in columns),
        *((value, None if value is None else f"{value:,.6g}") for value in trained),
        (seconds, f"{seconds:,.1f}" if seconds else None),
    ]:
        cell_text = text or ("" if value is None else format_value(value, digits=4))
        row_cells.append(el("td", cell_text, class_="number", data_value="" if value is None else repr(float(value))))
    return row_cells


def over_seeds(rows: list[Row], swept: list[str], columns: list[str], main: str | None) -> Html | None:
    """Mean and standard deviation (n - 1) over configurations that differ in the seed alone."""

    others = [k for k in swept if k != "seed"]
    groups = seed_groups(rows, swept)
    if not groups:
        return None
    fewer = False  # whether a metric was measured for some of the seeds only
    lines: list[tuple[float, Html]] = []
    for key, group in groups.items():
        row_cells = [el("td", k) for k in key] + [el("td", str(len(group)), class_="number", data_value=len(group))]
        rank = float("inf")
        for c in columns:
            values = [r.numbers[c] for r in group if c in r.numbers]
            mean = statistics.fmean(values) if values else None
            spread = statistics.stdev(values) if len(values) > 1 else None
            cell_text = "" if mean is None else format_value(mean, spread)
            if 0 < len(values) < len(group):
                cell_text += f" (n={len(values)})"
                fewer = True
            row_cells.append(el("td", cell_text, class_="number", data_value="" if mean is None else repr(mean)))
            rank = sort_key(mean, c) if c == main else rank
        lines.append((rank, el("tr", *row_cells)))
    head = [*(el("th", k, scope="col") for k in others), el("th", "seeds", scope="col", class_="number")]
    head += [el("th", label(c), scope="col", class_="number") for c in columns]
    body = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    found_table = el("table", el("thead", el("tr", *head)), el("tbody", *body), class_="sortable")
    text = f"Mean and standard deviation (n - 1) over {'' if is_evaluation(rows) else 'training '}seeds."
    text += " A metric with n in brackets was measured for n of the seeds only." if fewer else ""
    note = el("p", text, class_="lead")
    return section("seeds", "Over seeds", note, scrolling_table(found_table, "means over seeds"))


def seed_groups(rows: list[Row], swept: list[str]) -> dict[tuple[str, ...], list[Row]]:
    """The rows of each configuration, by its swept keys other than the seed; {} where none has several seeds."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for r in rows if "seed" in swept else ():
        if r.numbers or r.earlier:
            groups.setdefault(tuple(r.keys.get(k, "") for k in swept if k != "seed"), []).append(r)
    return groups if any(len(group) > 1 for group in groups.values()) else {}


def constant(rows: list[Row], swept: list[str]) -> Html | None:
    """Overrides that all runs share."""

    same = {k: v for k, v in rows[0].keys.items() if k not in swept} if rows else {}
    pairs = [el("div", el("dt", k), el("dd", v)) for k, v in same.items()]
    return section("common", "Common to all", el("dl", *pairs, class_="card") if pairs else None)


def sweep_command(folder: Path, rows: list[Row]) -> Html | None:
    values: dict[str, list[str]] = {}
    for r in rows:
        for k, v in r.keys.items():
            if v not in values.setdefault(k, []):
                values[k].append(v)
    if not (folder / "jobs").is_dir():
        return None
    word = next((r.run.word for r in rows if r.run), next((r.command for r in rows if r.command), "pretrain"))
    first = [",".join(values.pop("evaluator"))] if word == "eval" and "evaluator" in values else []
    overrides = [as_typed(f"{k}={v[0]}") if len(v) == 1 else f"{k}={','.join(v)}" for k, v in values.items()]
    run = next((r.run.path for r in rows if r.run), folder)
    line = run_command(run, word, *first, "-m", *overrides)
    return section("commands", "Made by", command_block(f"{line}\n{command('runs', 'report', short_name(folder))}"))
