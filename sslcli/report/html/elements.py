"""Elements that several sections share: a section, a command to copy, a scrolling table, an image, nested JSON."""

from __future__ import annotations

from sslcli.report.html.markup import Child, Html, el

MOST_ITEMS = 24  # of a list in a protocol


def section(name: str, heading: str, *content: Html | None) -> Html | None:
    """A section of the page; None if it has no content."""
    inside = [c for c in content if c is not None]
    return el("section", el("h2", heading), *inside, id=name, aria_label=heading) if inside else None


def command_block(text: str) -> Html:
    """A command line with a button that copies it."""
    return el("div", el("pre", el("code", text), tabindex=0, role="region", aria_label="command"), class_="command")


def scrolling_table(table: Html, label: str) -> Html:
    """A table that scrolls horizontally on a narrow screen, also by keyboard."""
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def image(uri: str, wide: int, high: int, caption: str) -> Html:
    """An image with its caption, which is also its alternative text."""
    caption = capitalize(caption)
    shape = " tall" if high > 1.2 * wide else " square" if high > 0.7 * wide else ""
    return el(
        "figure",
        el("img", src=uri, alt=caption, width=wide, height=high),
        el("figcaption", f"{caption}."),
        class_=f"image{shape}",
    )


def capitalize(text: str) -> str:
    """The text with a capital letter and without a final period."""
    return text[:1].upper() + text[1:].rstrip(". ")


def definition_list(value: object, depth: int = 0) -> Html:
    """Nested JSON as nested definition lists."""
    if isinstance(value, dict) and depth < 8:
        rows: list[Child] = []
        for k, v in value.items():
            rows += [el("dt", str(k).replace("_", " ")), el("dd", definition_list(v, depth + 1))]
        return el("dl", *rows)
    if isinstance(value, list):
        more = f", and {len(value) - MOST_ITEMS} more" if len(value) > MOST_ITEMS else ""
        return el("span", ", ".join(format_scalar(v) for v in value[:MOST_ITEMS]) + more)
    return el("span", format_scalar(value))


def format_scalar(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else str(value)[:40]
    return str(value)
