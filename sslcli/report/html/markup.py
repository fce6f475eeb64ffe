"""HTML by construction: text that is not `Html` is escaped, so that no name or caption becomes markup."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, Union

from sslcli.console import escape

VOID = frozenset({"br", "img", "input", "link", "meta", "path", "rect", "line", "circle", "use"})


class Html(str):
    """Text that is markup."""


Child = Union[str, int, float, None, Iterable["Child"]]  # noqa: UP007 (a recursive type)


def el(name: str, /, *children: Child, **attributes: Any) -> Html:
    """An element. Attributes: `class_`, `aria_label` and the like; None and False leave one out, True gives it no value."""
    given = "".join(_attribute(k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items())
    if name in VOID:
        assert not children, name
        return Html(f"<{name}{given}>" if name in ("br", "img", "input", "link", "meta") else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    return Html("".join(_child(c) for c in children))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int, float)):
        return text(str(child))
    return join(child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


def text(value: str) -> str:
    """Escape text for element content and quoted attributes; control characters and bidirectional marks become visible."""
    return html.escape(escape(value, keep="\n\t"), quote=True)


def data(identity: str, value: object) -> Html:
    """A block of JSON for the script. Nothing in it can end the block."""
    dumped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for c in "<>&\u2028\u2029":
        dumped = dumped.replace(c, f"\\u{ord(c):04x}")
    return Html(f'<script type="application/json" id="{text(identity)}">{dumped}</script>')
