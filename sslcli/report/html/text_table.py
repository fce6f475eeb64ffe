"""Tables of text: samples, tokens and words that an evaluation lists. A record may come from an untrusted source: whatever is not a
table is left out."""

from __future__ import annotations

import math
from typing import Any

from sslcli.plotting import heat_class
from sslcli.report.html.elements import capitalize, scrolling_table
from sslcli.report.html.markup import Child, Html, el

MOST_ROWS = 400
MOST_COLUMNS = 12
MOST_WORDS = 400  # of a cell
LONGEST = 1200  # characters of a cell


def text_table(caption: str, content: dict[str, Any]) -> Html | None:
    """A table of `columns` and `rows`. A cell is text, a number, or `{"words": [[word, weight], ...]}` with weights in 0..1, which
    are drawn as shades; a row that is a text is a heading."""
    columns, rows = content.get("columns"), content.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return None
    columns = columns[:MOST_COLUMNS]
    body = [_row(row, len(columns)) for row in rows[:MOST_ROWS]]
    more = f"; and {len(rows) - MOST_ROWS:,} more rows" if len(rows) > MOST_ROWS else ""
    head = el("thead", el("tr", *(el("th", _short(str(name)), scope="col") for name in columns)))
    title = capitalize(_short(caption) + more)
    table = el("table", el("caption", f"{title}."), head, el("tbody", *body), class_="texts")
    return scrolling_table(table, title)


def _row(row: Any, columns: int) -> Html:
    if isinstance(row, str):
        return el("tr", el("th", _short(row), scope="rowgroup", colspan=columns))
    cells = row[:columns] if isinstance(row, list) else []
    return el("tr", *(el("td", _cell(cell), class_=_kind(cell), dir="auto") for cell in cells))


def _kind(cell: Any) -> str | None:
    return "number" if isinstance(cell, (int, float)) and not isinstance(cell, bool) else None


def _cell(cell: Any) -> Child:
    if isinstance(cell, dict) and isinstance(words := cell.get("words"), list):
        shown: list[Child] = []
        for word in words[:MOST_WORDS]:
            if isinstance(word, list) and len(word) == 2:
                shown += [el("span", _short(str(word[0])), class_=_shade(word[1])), " "]
        return [*shown, "…"] if len(words) > MOST_WORDS else shown
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return _short(str(cell))


def _shade(weight: Any) -> str | None:
    """A class of the stylesheet. None for a weight that is no number."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
        return None
    return heat_class(weight)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"
