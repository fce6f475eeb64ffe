"""The HTML document around the sections: one file without requests; a policy allows its style and script by their hashes."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

from sslcli import __version__
from sslcli.report.html.markup import Html, el, join

_SECTION = re.compile(r'<section id="([^"]*)" aria-label="([^"]*)"( class="evaluation")?')


def page(title: str, sections: Sequence[Html | None], top: Html) -> str:
    """The HTML document of a report; its contents list has the ids and labels of the sections."""
    inside = [s for s in sections if s is not None]
    links = [el("li", el("a", label, href=f"#{name}"), class_=level) for name, label, level in contents(inside)]
    body = (
        el("a", "Skip to the content", href="#content", class_="skip"),
        el(
            "header",
            el("span", "sslcli", class_="brand"),
            el("span", "report", class_="brand-what"),
            el("button", "Theme: auto", type="button", id="theme", hidden=True),
            class_="bar-top",
        ),
        el(
            "div",
            el("nav", el("ul", *links), aria_label="Contents", class_="contents"),
            el("main", top, join(inside), id="content", tabindex=-1),
            class_="columns",
        ),
    )
    return document(title, body, asset("style.css"), asset("script.js"))


def document(title: str, body: Sequence[Html], style: str, script: str) -> str:
    """An HTML document in one file that makes no requests. Its policy allows this style and this script, and no others."""
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{source(style)}'; script-src '{source(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="generator", content=f"sslcli {__version__}"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", Html(style)),
    )
    footer = el(
        "footer", el("p", f"Written by sslcli {__version__}. This page is self-contained and needs no network.")
    )
    content = el("body", *body, footer, el("script", Html(script)))
    return f"<!DOCTYPE html>\n{el('html', head, content, lang='en')}\n"


def contents(sections: Sequence[Html]) -> list[tuple[str, Html, str | None]]:
    """(id, label, class) of each section and of those in it; the label is markup already."""
    headings = [m for s in sections for m in _SECTION.finditer(s)]
    return [(m[1], Html(m[2]), "sub" if m[3] else None) for m in headings]


@functools.cache
def asset(name: str) -> str:
    return (files("sslcli.report.html") / name).read_text(encoding="utf-8")


def source(text: str) -> str:
    """A hash by which a policy allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
