"""Evaluations in the report: main metrics, bars beside baselines, tables, protocols, and images with captions."""

from __future__ import annotations

from sslcli.evals.base.info import evaluator_info
from sslcli.evals.metrics import interval
from sslcli.report.html import images
from sslcli.report.html.charts import bar
from sslcli.report.html.clip_sheets import ClipBudget, read_clip_sheet
from sslcli.report.html.elements import capitalize, definition_list, image, scrolling_table
from sslcli.report.html.markup import Html, el, join
from sslcli.report.html.text_table import text_table
from sslcli.report.metric_text import (
    BASELINE_NAMES,
    format_labels,
    format_metric,
    has_scale,
    label_budget,
    main_metric,
    metric_name,
    sort_evaluations,
    title,
)
from sslcli.report.run_contents import CaptionedImage, Evaluation, RunContents

SAVED, BOUND = "labels_saved", "labels_saved_is_bound"  # a factor, and whether it is only a lower bound
TILES = 4


# -------------------------------------------------------------------------------------------------------------- the top


def tiles(run: RunContents) -> Html | None:
    """The main metrics, each with its baselines."""
    items: list[Html] = []
    for e in sort_evaluations(run.evals):
        metric = main_metric(e)
        if metric is None or len(items) == TILES or not has_scale(metric):
            continue
        by_kind = e.numbers[metric]
        beside = [
            f"{BASELINE_NAMES.get(k, k)} {format_metric(e, metric, k).partition(' ± ')[0]}"
            for k in e.baselines
            if k in by_kind
        ]
        span = e.interval(metric)
        figure, _, std = headline(e, metric).partition(" ± ")
        items.append(
            el(
                "li",
                el("span", f"{title(e)}, {metric_name(metric)}", class_="what"),
                el(
                    "span",
                    figure,
                    el("small", f" ± {std}") if std else None,
                    class_="figure",
                ),
                el("span", f"95 %: {interval.format_interval(*span)}", class_="span") if span else None,
                el("span", " · ".join(beside) or label_budget(e), class_="beside-it"),
            )
        )
    return el("ul", *items, class_="tiles") if items else None


def headline(e: Evaluation, metric: str) -> str:
    """The value of a tile; labels saved are a factor, which may be a lower bound."""
    mean, _ = e.numbers[metric][""]
    if metric != SAVED:
        return format_metric(e, metric)
    bound = e.numbers.get(BOUND, {}).get("", (0.0, None))[0]
    return f"{'> ' if bound else ''}{mean:.3g} ×"


def bars(run: RunContents) -> Html | None:
    """A bar for each main metric and its baselines."""
    groups = []
    for e in sort_evaluations(run.evals):
        metric = main_metric(e)
        if metric is None or not has_scale(metric) or not any(k in e.numbers[metric] for k in e.baselines):
            continue
        by_kind = e.numbers[metric]
        most = max(1.0, *(mean for mean, _ in by_kind.values()))
        rows = [
            el(
                "tr",
                el("th", BASELINE_NAMES.get(k, k), scope="row"),
                el(
                    "td",
                    bar(by_kind[k][0] / most, "own" if k == "" else "other", *ends(e, metric, k, most)),
                    class_="wide",
                ),
                el("td", format_metric(e, metric, k), class_="number"),
            )
            for k in ("", *e.baselines)
            if k in by_kind
        ]
        budget = (
            label_budget(e)
            if e.labels == "all"
            else label_budget(e).removeprefix(format_labels(e.labels)).removeprefix(", ")
        )  # the title contains the labels
        caption = el("caption", el("strong", title(e)), f" {metric_name(metric)}{', ' + budget if budget else ''}")
        groups.append(el("table", caption, el("tbody", *rows), class_="bars"))
    if not groups:
        return None
    note = (
        "Lines on the bars: 95 % intervals, for other test samples and, where there are several, other draws of labels."
    )
    return el("div", el("p", note, class_="lead"), el("div", *groups, class_="groups"))


def ends(e: Evaluation, metric: str, kind: str, most: float) -> tuple[float, float] | tuple[()]:
    """The interval on a bar that is `most` long; where the record has none, one standard deviation to either side."""
    mean, std = e.numbers[metric][kind]
    low, high = e.interval(metric, kind) or ((mean - std, mean + std) if std is not None else (None, None))
    return (low / most, high / most) if low is not None and high is not None else ()


# -------------------------------------------------------------------------------------------------------- an evaluation


def evaluation(e: Evaluation, budget: ClipBudget) -> Html:
    """The metrics, images and protocol of one evaluation."""
    notes = e.protocol.get("notes")
    lines = [str(n) for n in notes] if isinstance(notes, list) else []
    if e.outdated:
        lines.insert(0, f"measured with the weights of {e.step}; the run has other weights now")
    lead = "; ".join(part for part in (evaluator_info(e.kind).summary, label_budget(e)) if part)
    return el(
        "section",
        el("h3", title(e)),
        el("p", f"{capitalize(lead)}.", class_="lead") if lead else None,
        numbers(e),
        [text_table(caption, content) for caption, content in e.tables.items()],
        [figure(p, budget) for p in e.images],
        el("ul", *(el("li", n) for n in lines), class_="notes") if lines else None,
        el("details", el("summary", "Protocol"), el("div", protocol(e), class_="inside")),
        id=anchor(e),
        aria_label=title(e),
        class_="evaluation",
    )


def anchor(e: Evaluation) -> str:
    """An id of letters, digits and `_`; different for different names."""
    return "eval-" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in e.name)


def numbers(e: Evaluation) -> Html | None:
    if not e.numbers:
        return None
    kinds = ["", *e.baselines]
    head = [
        el("th", "", scope="col"),
        *(el("th", BASELINE_NAMES.get(k, k), scope="col", class_="number") for k in kinds),
    ]
    body = []
    for metric, by_kind in e.numbers.items():
        if metric == BOUND:
            continue
        figures = [format_metric(e, metric, k, digits=4) if k in by_kind else "" for k in kinds]
        if metric == SAVED:
            figures[0] = headline(e, metric)
        body.append(
            el("tr", el("th", metric_name(metric), scope="row"), *(el("td", f, class_="number") for f in figures))
        )
    return scrolling_table(el("table", el("thead", el("tr", *head)), el("tbody", *body)), f"numbers of {title(e)}")


def protocol(e: Evaluation) -> Html:
    rest = {k: v for k, v in e.protocol.items() if k != "notes"}
    return definition_list(rest | {k: v for k, v in e.about.items() if k not in ("evaluator", "overrides")})


def figure(png: CaptionedImage, budget: ClipBudget) -> Html:
    """An image of samples; where these play, they stand in its place as long as the page has room for them."""
    sheet = None if png.clips is None else read_clip_sheet(png.clips, png.caption)
    if sheet is None:
        return _still(png)
    if not budget.take(len(sheet.html)):
        return join([_still(png), budget.note()])
    return join([_still(png), sheet.html]) if sheet.beside else sheet.html


def _still(png: CaptionedImage) -> Html:
    image_data = images.read(png.path)
    if image_data is None:
        return el("p", f"{png.path.name} is not an image that can be shown.", class_="missing")
    uri, (wide, high) = image_data
    return image(uri, wide, high, png.caption)
