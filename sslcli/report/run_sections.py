"""The sections of a run's page, from top to bottom; each is None where there is nothing to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.report.evaluations import bars, evaluation, figure, tiles
from sslcli.report.feature_map.view import view
from sslcli.report.html import images
from sslcli.report.html.charts import Line, curve
from sslcli.report.html.clip_sheets import ClipBudget
from sslcli.report.html.elements import command_block, format_scalar, image, scrolling_table, section
from sslcli.report.html.markup import Html, el
from sslcli.report.metric_text import sort_evaluations
from sslcli.report.run_contents import RunContents, number
from sslcli.runs import Record
from sslcli.runs.find import run_command
from sslcli.runs.listing import format_length

if TYPE_CHECKING:
    from sslcli.report.model_figures import ModelFigures

ON_CURVES = ("loss", "lr", "samples_per_s", "data_wait", "spread", "progress")
MOST_CURVES = 24  # of what a method logs beside these
MOST_NUMBERS = 40  # of a summary


def heading(run: RunContents) -> tuple[str, str]:
    """The title, such as `SimCLR on digits`, and the line below it."""
    method, data = run.choice("method") or "a run", run.choice("dataset")
    what = next(iter(run.screen.get("what", [])), "")
    backbone = what.partition(" on ")[2] or run.choice("backbone")
    return f"{method} on {data}" if data else method, f"backbone {backbone}" if backbone else ""


STATES = {
    "done": "",
    "running": "This run is in progress: the page shows the results so far.",
    "interrupted": "This run was interrupted.",
    "failed": "This run failed.",
    "lost": "The process of this run exited unexpectedly.",
}


def header(run: RunContents, name: str) -> Html:
    title, under = heading(run)
    warning = STATES.get(run.state, f"The status of this run is {run.state}.")
    error = run.status.get("error")
    resume = run_command(run.path, "resume", name) if run.state in ("interrupted", "failed", "lost") else None
    return el(
        "div",
        el(
            "p",
            f"{'Supervised' if run.labels_seen() == 'all of them' else 'Self-supervised'} pretraining",
            class_="kicker",
        ),
        el("h1", title),
        el("p", "; ".join(part for part in (under, progress_text(run)) if part), class_="under"),
        el(
            "div",
            el("p", el("strong", warning), f" {error}" if error else ""),
            command_block(resume) if resume else None,
            class_="status",
            role="note",
        )
        if warning
        else None,
        tiles(run),
        class_="top",
    )


def progress_text(run: RunContents) -> str:
    seconds = number(run.status.get("seconds"))
    parts = [format_length(run.length)] if run.step else []
    if seconds:
        parts.append(console.human_time(seconds))
    return " in ".join(parts)


# ---------------------------------------------------------------------------------------------------------- protocol card


# ---------------------------------------------------------------------------------------------------------------- curves


def training(run: RunContents) -> Html | None:
    resumed = [s for e in run.events if e.get("event") == "resumed" and (s := number(e.get("step"))) is not None]
    drawn = [
        chart
        for title, key, options in (
            ("Loss", "train/loss", {}),
            ("Learning rate", "train/lr", {"zero": True}),
            ("Samples per second", "train/samples_per_s", {"zero": True}),
            ("Share of time spent waiting for data", "train/data_wait", {"zero": True, "percent": True}),
        )
        if (chart := one(run, title, key, resumed, **options))
    ]
    known = {f"train/{name}" for name in ON_CURVES}
    others = sorted({k for m in run.metrics for k in m if k.startswith("train/")} - known)
    more = [c for key in others[:MOST_CURVES] if (c := one(run, key.removeprefix("train/"), key, resumed))]
    return section(
        "curves",
        "Training",
        el("div", *drawn, class_="curves") if drawn else None,
        el("details", el("summary", "What else the method logs"), el("div", *more, class_="curves")) if more else None,
        event_table(run),
    )


def one(run: RunContents, title: str, key: str, marks: list[float], **options: Any) -> Html | None:
    points = run.curve(key)
    return curve(title, [Line(key.rpartition("/")[2], points)], marks=marks, **options) if points else None


def event_table(run: RunContents) -> Html | None:
    """Events of the run: warnings, skipped steps, interruptions."""
    if not run.events:
        return None
    rows = [
        el(
            "tr",
            el("td", str(e.get("time", ""))[:19].replace("T", " ")),
            el("td", str(e.get("event", ""))[:100]),
            el("td", ", ".join(f"{k} {format_scalar(v)}" for k, v in e.items() if k not in ("time", "event"))[:300]),
        )
        for e in run.events
    ]
    head = el("thead", el("tr", *(el("th", h, scope="col") for h in ("time", "event", ""))))
    table = scrolling_table(el("table", head, el("tbody", *rows)), "events")
    return el("details", el("summary", f"Events ({len(rows)})"), table)


def health(run: RunContents) -> Html | None:
    """Online metrics within the training split that reveal a collapse."""
    spread = [Line("output", run.curve("train/spread")), Line("features", run.curve("eval/spread"))]
    drawn = [
        curve("Spread", spread, zero=True, note="1: isotropic features, 0: collapse")
        if any(s.points for s in spread)
        else None,
        one(run, "RankMe", "eval/rankme", [], note="effective rank of the features"),
        one(run, "k-NN accuracy within the training split", "eval/knn/top1", [], percent=True),
    ]
    shown = [d for d in drawn if d is not None]
    return section("health", "Spread and rank", el("div", *shown, class_="curves")) if shown else None


# --------------------------------------------------------------------------------------------------------------- images


def views(run: RunContents, atlas: ModelFigures | None) -> Html | None:
    if atlas is None or atlas.views is None or (sheet := images.embedded(atlas.views)) is None:
        return None
    uri, (wide, high) = sheet
    kinds = ", ".join(f"{atlas.kinds.count(k)} {k}" for k in dict.fromkeys(atlas.kinds))
    caption = f"samples of the first batch, left, and their views ({kinds}) as the method saw them in the first epoch"
    return section("views", "What the method saw", image(uri, wide, high, caption))


def map_section(atlas: ModelFigures | None) -> Html | None:
    if atlas is None or atlas.map is None:
        return None
    return section("map", "Map of the features", view(atlas.map))


def method_images(run: RunContents, budget: ClipBudget) -> Html | None:
    shown = [figure(p, budget) for p in run.images]
    return section("images", "Figures from the method", *shown)


def evaluation_sections(run: RunContents, budget: ClipBudget) -> Html | None:
    evals = sort_evaluations(run.evals)
    return section("evaluations", "Evaluations", *(evaluation(e, budget) for e in evals))


def baseline_section(run: RunContents) -> Html | None:
    return section("baselines", "Comparison with baselines", bars(run))


# --------------------------------------------------------------------------------------------------- commands, environment


# ------------------------------------------------------------------------------------------------------------------- use


def summaries(run: RunContents) -> Html | None:
    """What commands that use the encoder found: the audit of the data, predictions, samples to label."""
    return section("use", "Use", *(_summary(name, record) for name, record in sorted(run.summaries.items())))


def _summary(name: str, record: Record) -> Html:
    title = str(record["title"])
    rows = [
        el("tr", el("th", key.replace("_", " "), scope="row"), el("td", format_scalar(value), class_="number"))
        for key, value in list(record.get("numbers", {}).items())[:MOST_NUMBERS]
    ]
    written = el("p", "Written to ", el("code", record["file"]), ".", class_="lead") if record.get("file") else None
    notes = [el("li", f"{note}.") for note in record.get("notes", [])[:MOST_NUMBERS]]
    return el(
        "section",
        el("h3", title),
        written,
        scrolling_table(el("table", el("tbody", *rows)), title) if rows else None,
        el("ul", *notes, class_="notes") if notes else None,
        id=f"use-{name}",
        aria_label=title,
        class_="evaluation",
    )
