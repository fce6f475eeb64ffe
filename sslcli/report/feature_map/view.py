"""The map of features, one point for each sample; interactive with the script, an image without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslcli.report.html.images import data_uri
from sslcli.report.html.markup import Html, data, el

if TYPE_CHECKING:
    from sslcli.report.feature_map.feature_map import FeatureMap

COLORS, SHAPES = 8, 4  # classes beyond their product share a mark, and differ in the read-out only
ROOM = 24  # around the points, in their units


def view(of: FeatureMap) -> Html:
    """The drawing, its legend, and what the script needs to show single samples."""
    feature_map = of.points
    first = feature_map["projections"][0]
    n, classes, labels = len(feature_map["ids"]), feature_map["classes"], feature_map["labels"]
    marks = [
        el("use", href=f"#m{shape(c)}", x=x, y=y, class_=f"k{c % COLORS}" if c >= 0 else "k-none")
        for c, (x, y) in zip(labels, first["points"], strict=True)
    ]
    names = [el("text", classes[c], x=x, y=y, data_class=c) for c, x, y in first["centres"]]
    side = 1000 + 2 * ROOM
    drawing = el(
        "svg",
        symbols(),
        el("g", *marks, class_="marks"),
        el("g", *names, class_="names"),
        viewBox=f"{-ROOM} {-ROOM} {side} {side}",
        role="img",
        aria_label=f"{first['name']} of the features of {n:,} {feature_map['split']} samples"
        + (f" of {len(classes)} classes" if classes else ""),
    )
    scope = (
        f"{n:,} of {feature_map['of']:,} {feature_map['split']} samples"
        if n < feature_map["of"]
        else f"All {n:,} {feature_map['split']} samples"
    )
    switch = [
        el("button", p["name"], type="button", data_projection=i, aria_pressed="true" if i == 0 else "false")
        for i, p in enumerate(feature_map["projections"])
    ]
    if wrong := errors(feature_map):
        label = f"{feature_map['predicted_by']}: misclassified ({wrong:,})"
        switch.append(el("button", label, type="button", id="map-wrong", aria_pressed="false"))
    note = el("p", f"{first['note']}.", class_="note", id="map-note")
    return el(
        "div",
        el(
            "p",
            f"{scope}, placed by their features. "
            "Point at a sample, or use the arrow keys, to see it and its nearest neighbors (cosine similarity, all dimensions).",
            class_="lead",
        ),
        el("div", *switch, class_="switch", role="group", aria_label="what the map shows", hidden=True),
        el(
            "div",
            el("div", drawing, class_="map-frame"),
            el("div", note, el("div", id="map-sample"), legend(feature_map), class_="map-side"),
            class_="map",
            id="feature-map",
        ),
        None if of.sprite is None else el("img", src=data_uri(of.sprite), alt="", id="map-sprite", hidden=True),
        el("template", *map(Html, of.markup), id="map-samples") if of.markup else None,
        data("map-data", feature_map),
    )


def errors(feature_map: dict[str, Any]) -> int:
    """Number of misclassified samples."""
    pairs = zip(feature_map["predicted"] or [], feature_map["labels"], strict=False)
    return sum(predicted >= 0 and true >= 0 and predicted != true for predicted, true in pairs)


def shape(c: int) -> int:
    return max(0, c) // COLORS % SHAPES


def symbols() -> Html:
    """Circle, square, triangle, cross: in a row of eight colors each."""
    drawn = [
        "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0 -6 0Z",
        "M-5-5H5V5H-5Z",
        "M0-7L7 5H-7Z",
        "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    ]
    return el("defs", *(el("path", d=d, id=f"m{i}") for i, d in enumerate(drawn)))


def legend(feature_map: dict[str, Any]) -> Html | None:
    """The classes: with the script each a button that shows its samples alone."""
    if not feature_map["classes"]:
        return None
    counts = [feature_map["labels"].count(c) for c in range(len(feature_map["classes"]))]
    items = [
        el(
            "li",
            el("svg", el("use", href=f"#m{shape(c)}", class_=f"k{c % COLORS}"), viewBox="-9 -9 18 18", aria_hidden="true"),
            el("span", name, class_="class-name", data_class=c),
            el("span", f"{counts[c]:,}", class_="number"),
        )
        for c, name in enumerate(feature_map["classes"])
        if counts[c]
    ]  # fmt: skip
    return el("ul", *items, class_="legend", tabindex=0, role="list", aria_label="classes")
