"""What was measured: figures, bars beside the baselines, tables with their protocol, pictures with their captions."""

from __future__ import annotations

from typing import Any

from sslcli.evals.base.info import evaluator_info, evaluator_infos
from sslcli.evals.metrics import interval
from sslcli.evals.metrics.ranking import METRICS
from sslcli.report import images
from sslcli.report.charts import bar
from sslcli.report.gather import Evaluation, Gathered, Picture
from sslcli.report.markup import Child, Html, el

SAVED, BOUND = "labels_saved", "labels_saved_is_bound"  # a factor, and whether it is known from one side only
KINDS = {
    "": "this run",
    "supervised": "supervised",
    "scratch": "from scratch",
    "untrained": "untrained",
    "raw": "raw inputs",
}
WORDS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "auroc": "AUROC",
    "acc": "clustering accuracy",
    "nmi": "NMI",
    "ari": "ARI",
    "map": "mAP",
    "fpr95": "FPR at 95 % recall",
    "rankme": "RankMe",
    "alpha_req": "α-ReQ",
    "lidar": "LiDAR",
    "clid": "CLID",
    "intrinsic_dim": "intrinsic dimension",
    "map_at_r": "mAP at R",
    "ece": "calibration error",
    "brier": "Brier score",
    "nll": "log loss",
    "labels_saved": "labels that the best baseline needs",
    "mse": "mean squared error",
    "psnr": "PSNR, dB",
}
TILES = 4
MOST_ITEMS = 24  # of a list in a protocol


def ordered(evals: list[Evaluation]) -> list[Evaluation]:
    return sorted(evals, key=lambda e: (evaluator_info(e.kind).order, e.name))


def title(e: Evaluation) -> str:
    """Of a result with few labels they are part of the title: a run may have several."""
    on = f", on {e.dataset}" if e.dataset else ""
    few = f", {amount(e.labels)}" if e.labels != "all" else ""
    return evaluator_info(e.kind).title + on + few


def main_number(e: Evaluation) -> str | None:
    return next((m for m in evaluator_info(e.kind).metrics if "" in e.numbers.get(m, {})), None)


def has_scale(metric: str) -> bool:
    """Whether a metric means something without other runs beside it; those that rank runs without labels do not."""
    return metric not in METRICS


def worded(metric: str) -> str:
    """`AUROC of mahalanobis` for `mahalanobis.auroc`, `top-1 accuracy of the linear probe` for `probe.top1`."""
    of, _, name = metric.rpartition(".")
    name, _, at = name.partition("@")
    said = WORDS.get(name, name.replace("_", " ")) + (f" at {at}" if at else "")
    if known := evaluator_infos().get(of):
        return f"{said} of the {known.title[:1].lower()}{known.title[1:]}"
    return f"{said} of {WORDS.get(of, of.replace('_', ' '))}" if of else said


def shown(mean: float, std: float | None = None, digits: int = 3) -> str:
    """`0.958 ± 0.013`; what is not of the size of a share with four significant digits."""
    if abs(mean) <= 1:
        said = f"{mean:.{digits}f}"
        return said if std is None else f"{said} ± {std:.{digits}f}"
    said = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
    return said if std is None else f"{said} ± {std:.2g}"


def figure_of(e: Evaluation, metric: str, kind: str = "", digits: int = 3) -> str:
    """A number with as many digits as its interval justifies, and its deviation over draws."""
    mean, std = e.numbers[metric][kind]
    span = e.interval(metric, kind)
    if span is None or None in span:
        return shown(mean, std, digits)
    said = interval.shown(mean, span)
    return said if std is None else f"{said} ± {std:.{len(said.partition('.')[2])}f}"


def how(e: Evaluation) -> str:
    """`all labels`, `10 labels a class, 5 draws`."""
    labels, seeds = e.protocol.get("labels"), e.protocol.get("seeds")
    if labels is None:
        return ""
    said = amount(str(labels))
    return f"{said}, {seeds} draws" if isinstance(seeds, int) and seeds > 1 else said


def amount(labels: str) -> str:
    """`5 labels a class` for `5/class`."""
    if labels == "all":
        return "all labels"
    n, slash, _ = labels.partition("/class")
    if slash:
        return f"{n} label{'' if n == '1' else 's'} a class"
    return (
        f"{labels} labels"
        if labels.isdigit()
        else f"{labels} of the labels"
        if "%" in labels
        else f"labels of {labels}"
    )


# -------------------------------------------------------------------------------------------------------------- the top


def tiles(run: Gathered) -> Html | None:
    """The main numbers, each with what it has to beat."""
    found: list[Html] = []
    for e in ordered(run.evals):
        metric = main_number(e)
        if metric is None or len(found) == TILES or not has_scale(metric):
            continue
        by_kind = e.numbers[metric]
        beside = [
            f"{KINDS.get(k, k)} {figure_of(e, metric, k).partition(' ± ')[0]}" for k in e.baselines if k in by_kind
        ]
        span = e.interval(metric)
        figure, _, std = headline(e, metric).partition(" ± ")
        found.append(
            el(
                "li",
                el("span", f"{title(e)}, {worded(metric)}", class_="what"),
                el(
                    "span",
                    figure,
                    el("small", f" ± {std}") if std else None,
                    class_="figure",
                ),
                el("span", f"95 %: {interval.between(*span)}", class_="span") if span else None,
                el("span", " · ".join(beside) or how(e), class_="beside-it"),
            )
        )
    return el("ul", *found, class_="tiles") if found else None


def headline(e: Evaluation, metric: str) -> str:
    """The figure of a tile; of labels saved a factor, which may be known from one side only."""
    mean, _ = e.numbers[metric][""]
    if metric != SAVED:
        return figure_of(e, metric)
    bound = e.numbers.get(BOUND, {}).get("", (0.0, None))[0]
    return f"{'> ' if bound else ''}{mean:.3g} ×"


def bars(run: Gathered) -> Html | None:
    """Each main number beside its baselines."""
    groups = []
    for e in ordered(run.evals):
        metric = main_number(e)
        if metric is None or not has_scale(metric) or not any(k in e.numbers[metric] for k in e.baselines):
            continue
        by_kind = e.numbers[metric]
        most = max(1.0, *(mean for mean, _ in by_kind.values()))
        rows = [
            el(
                "tr",
                el("th", KINDS.get(k, k), scope="row"),
                el(
                    "td",
                    bar(by_kind[k][0] / most, "own" if k == "" else "other", *ends(e, metric, k, most)),
                    class_="wide",
                ),
                el("td", figure_of(e, metric, k), class_="number"),
            )
            for k in ("", *e.baselines)
            if k in by_kind
        ]
        made = (
            how(e) if e.labels == "all" else how(e).removeprefix(amount(e.labels)).removeprefix(", ")
        )  # the title has them
        caption = el("caption", el("strong", title(e)), f" {worded(metric)}{', ' + made if made else ''}")
        groups.append(el("table", caption, el("tbody", *rows), class_="bars"))
    if not groups:
        return None
    told = (
        "Lines on the bars: 95 % intervals, for other test samples and, where there are several, other draws of labels."
    )
    return el("div", el("p", told, class_="lead"), el("div", *groups, class_="groups"))


def ends(e: Evaluation, metric: str, kind: str, most: float) -> tuple[float, float] | tuple[()]:
    """The interval on a bar that is `most` long; where the record has none, one standard deviation to either side."""
    mean, std = e.numbers[metric][kind]
    low, high = e.interval(metric, kind) or ((mean - std, mean + std) if std is not None else (None, None))
    return (low / most, high / most) if low is not None and high is not None else ()


# -------------------------------------------------------------------------------------------------------- an evaluation


def evaluation(e: Evaluation) -> Html:
    """Pictures, numbers, protocol of one."""
    notes = e.protocol.get("notes")
    said = [str(n) for n in notes] if isinstance(notes, list) else []
    lead = "; ".join(part for part in (evaluator_info(e.kind).summary, how(e)) if part)
    return el(
        "section",
        el("h3", title(e)),
        el("p", f"{sentence(lead)}.", class_="lead") if lead else None,
        numbers(e),
        [figure(p) for p in e.pictures],
        el("ul", *(el("li", n) for n in said), class_="notes") if said else None,
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
    head = [el("th", "", scope="col"), *(el("th", KINDS.get(k, k), scope="col", class_="number") for k in kinds)]
    body = []
    for metric, by_kind in e.numbers.items():
        if metric == BOUND:
            continue
        figures = [figure_of(e, metric, k, digits=4) if k in by_kind else "" for k in kinds]
        if metric == SAVED:
            figures[0] = headline(e, metric)
        body.append(el("tr", el("th", worded(metric), scope="row"), *(el("td", f, class_="number") for f in figures)))
    return scrolling(el("table", el("thead", el("tr", *head)), el("tbody", *body)), f"numbers of {title(e)}")


def scrolling(table: Html, label: str) -> Html:
    """A table that scrolls by itself where the screen is narrow, by keyboard too."""
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def figure(picture: Picture) -> Html:
    found = images.read(picture.path)
    if found is None:
        return el("p", f"{picture.path.name} is no picture that can be shown.", class_="missing")
    uri, (wide, high) = found
    return image(uri, wide, high, picture.caption)


def image(uri: str, wide: int, high: int, caption: str) -> Html:
    """A picture with its caption, which is its text for who cannot see it as well."""
    caption = sentence(caption)
    shape = " tall" if high > 1.2 * wide else " square" if high > 0.7 * wide else ""
    return el(
        "figure",
        el("img", src=uri, alt=caption, width=wide, height=high),
        el("figcaption", f"{caption}."),
        class_=f"picture{shape}",
    )


def sentence(text: str) -> str:
    """With a capital, without its full stop."""
    return text[:1].upper() + text[1:].rstrip(". ")


def protocol(e: Evaluation) -> Html:
    rest = {k: v for k, v in e.protocol.items() if k != "notes"}
    return tree(rest | {k: v for k, v in e.about.items() if k not in ("evaluator", "overrides")})


def tree(value: Any, depth: int = 0) -> Html:
    """Nested JSON as nested definition lists."""
    if isinstance(value, dict) and depth < 8:
        rows: list[Child] = []
        for k, v in value.items():
            rows += [el("dt", str(k).replace("_", " ")), el("dd", tree(v, depth + 1))]
        return el("dl", *rows)
    if isinstance(value, list):
        more = f", and {len(value) - MOST_ITEMS} more" if len(value) > MOST_ITEMS else ""
        return el("span", ", ".join(plain(v) for v in value[:MOST_ITEMS]) + more)
    return el("span", plain(value))


def plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else str(value)[:40]
    return str(value)
