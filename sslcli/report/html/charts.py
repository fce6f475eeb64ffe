"""Charts as inline SVG. Text keeps its size on any screen: only the area between the axes is stretched.

Without the script they are images; with it each has a read-out that follows the pointer and the arrow keys."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sslcli.report.html.markup import Html, el

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 1000, 168  # of the area, in its own units; HEIGHT is in pixels of the page
LEFT = 52  # pixels, for the labels of the axis
MOST_POINTS = 600


@dataclass
class Line:
    name: str
    points: Points


def curve(
    title: str,
    lines: Sequence[Line],
    *,
    note: str = "",
    percent: bool = False,
    zero: bool = False,
    marks: Sequence[float] = (),
) -> Html:
    """A chart of one or two lines over steps. `marks`: steps at which the run was resumed."""
    lines = [Line(line.name, thin(line.points)) for line in lines if line.points]
    assert lines
    if all(len(line.points) == 1 for line in lines):
        return single(title, lines, note, percent)
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low_x, high_x = min(xs), max(xs)
    ticks = axis_ticks(min(0.0, min(ys)) if zero else min(ys), max(ys))
    low, high = ticks[0], ticks[-1]

    def px(x: float) -> float:
        return round(WIDTH * (x - low_x) / (high_x - low_x), 1) if high_x > low_x else WIDTH / 2

    def py(y: float) -> float:
        return round(HEIGHT * (1 - (y - low) / (high - low)), 1)

    shapes: list[Html] = [el("line", class_="grid", x1=0, x2=WIDTH, y1=py(t), y2=py(t)) for t in ticks]
    shapes += [el("line", class_="mark", x1=px(x), x2=px(x), y1=0, y2=HEIGHT) for x in marks if low_x <= x <= high_x]
    for i, line in enumerate(lines):
        path = "".join(f"{'L' if j else 'M'}{px(x):g} {py(y):g}" for j, (x, y) in enumerate(line.points))
        if len(line.points) == 1:  # one point is no line: a short dash
            x, y = px(line.points[0][0]), py(line.points[0][1])
            path = f"M{x - 8:g} {y:g}L{x + 8:g} {y:g}"
        shapes.append(el("path", class_=f"line l{i}", d=path))
    area = el(
        "svg",
        *shapes,
        class_="area",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label="; ".join(describe_line(line, percent) for line in lines),
    )
    beside = el(
        "svg",
        *(el("text", format_value(t, percent, ticks), x=LEFT - 8, y=py(t) + 4, text_anchor="end") for t in ticks),
        class_="beside",
        aria_hidden="true",
    )
    below = el(
        "svg",
        el("text", f"{low_x:,.0f}", x="0%", y=14),
        el("text", "step", x="50%", y=14, text_anchor="middle"),
        el("text", f"{high_x:,.0f}", x="100%", y=14, text_anchor="end"),
        class_="below",
        aria_hidden="true",
    )
    packed = {
        "percent": percent,
        "x": [low_x, high_x],
        "y": [low, high],
        "lines": [{"name": line.name, "points": [[x, float(f"{y:.5g}")] for x, y in line.points]} for line in lines],
    }
    last = "  ".join(
        f"{line.name + ' ' if len(lines) > 1 else ''}{value(line.points[-1][1], percent)}" for line in lines
    )
    keys = [el("span", line.name, class_=f"key l{i}") for i, line in enumerate(lines)] if len(lines) > 1 else []
    return el(
        "figure",
        el("figcaption", el("strong", title), keys, el("output", last, class_="readout")),
        el("div", beside, el("div", area, class_="frame"), below, class_="plot"),
        el("p", note, class_="note") if note else None,
        class_="curve",
        data_chart=json.dumps(packed, separators=(",", ":")),
    )


def single(title: str, lines: Sequence[Line], note: str, percent: bool) -> Html:
    """Values of a metric with a single point, which has no curve."""
    several = len(lines) > 1
    values = [
        el("p", value(y, percent), el("small", f" {line.name + ', ' if several else ''}step {x:,.0f}"), class_="single")
        for line in lines
        for x, y in line.points
    ]
    caption = el("figcaption", el("strong", title))
    return el("figure", caption, *values, el("p", note, class_="note") if note else None, class_="curve")


def describe_line(line: Line, percent: bool) -> str:
    """A description of a line, for screen readers."""
    (x0, y0), (x1, y1) = line.points[0], line.points[-1]
    if len(line.points) == 1:
        return f"{line.name}: {value(y0, percent)} at step {x0:,.0f}"
    ys = [y for _, y in line.points]
    return (
        f"{line.name}: {value(y0, percent)} at step {x0:,.0f}, {value(y1, percent)} at step {x1:,.0f}, "
        f"between {value(min(ys), percent)} and {value(max(ys), percent)}"
    )


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """About `most` of the points at most: the first, the last, and the lowest and highest of each bucket."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    indices = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = range(start, min(start + size, len(points)))
        indices |= {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(indices)]


def axis_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that hold all between `low` and `high`."""
    if not high - low > 1e-12 * max(abs(low), abs(high), 1e-100):
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m for m in (1, 2, 2.5, 5, 10) if raw <= m * unit * 1.0001) * unit
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def format_value(tick: float, percent: bool, ticks: Sequence[float]) -> str:
    """A number beside an axis."""
    if percent:
        return f"{100 * tick:.3g} %"
    if max(abs(t) for t in ticks) >= 10_000:
        return f"{tick / 1000:,.4g}k"
    return f"{tick:.6g}"


def value(x: float, percent: bool = False) -> str:
    """A number in a sentence."""
    if percent:
        return f"{100 * x:.1f} %"
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.4g}"


def bar(share: float, kind: str, low: float | None = None, high: float | None = None) -> Html:
    """A bar as long as `share` (0..1) of its cell, with a line from `low` to `high` on it."""

    def at(x: float) -> float:
        return round(100 * min(1.0, max(0.0, x)), 2)

    line = [] if low is None or high is None else [el("path", class_="span", d=f"M{at(low):g} 5H{at(high):g}")]
    if line:
        line += [el("path", class_="span", d=f"M{at(x):g} 2V8") for x in (low, high) if x is not None]
    return el(
        "svg",
        el("rect", width=at(share), height=10),
        *line,
        class_=f"bar {kind}",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
