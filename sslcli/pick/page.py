"""A page on which the picked samples are labeled with the keyboard: one file without requests, see `report/html/page.py`."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from sslcli.data.files.csv_text import cell
from sslcli.pick.output import read_previews
from sslcli.pick.picks import Picked, PickedSample
from sslcli.report.html.elements import capitalize
from sslcli.report.html.images import embedded
from sslcli.report.html.markup import Html, data, el, join
from sslcli.report.html.page import asset, document
from sslcli.runs.files import replace_file
from sslcli.views.preview.base import Preview, to_png

HEAVY = 20_000  # bytes of a PNG, above which a photograph is written as JPEG: a page has hundreds
SHORTEST = 384  # pixels of the longer side of a drawing, if it can be enlarged


def write_page(picked: Picked, out: Path) -> None:
    """Writes the page. Its button saves a CSV file that `labels=` reads, with the labels of `have=` first."""
    replace_file(out.parent, out.name, page(picked))


def page(picked: Picked) -> str:
    shown = [_sample(s, preview) for s, preview in zip(picked.samples, read_previews(picked), strict=True)]
    request, n = picked.request, len(picked.samples)
    title = f"{n:,} samples to label"
    body = (
        el(
            "header",
            el("span", "sslcli", class_="brand"),
            el("span", title, class_="brand-what"),
            el("button", "Save labels.csv", type="button", id="save", hidden=True),
            class_="bar-top",
        ),
        el(
            "main",
            el("noscript", el("p", "To label on this page, allow its script.", class_="status")),
            el("p", "", id="progress", role="status", class_="under"),
            el("div", id="strip", role="group", aria_label="Samples"),
            el("div", id="classes", role="group", aria_label="Classes"),
            el("div", *shown, id="stage"),
            el(
                "p",
                "Keys: 1 to 9 (and 0) label and go on; arrows move; U undoes; Delete clears; S saves. ",
                f"Picked from {picked.inputs.dataset.name} by={request.by}, seed {request.seed}.",
                class_="note",
            ),
            id="content",
        ),
        data("picks", _facts(picked)),
    )
    return document(title, body, asset("style.css") + _own("page.css"), _own("page.js"))


def _facts(picked: Picked) -> dict[str, object]:
    """What the script knows. `store`: where a browser keeps labels that are not saved yet."""
    names = [str(cell(s.name)) for s in picked.samples]
    identity = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    known = picked.known
    same = known.column == picked.key
    return {
        "key": picked.key,
        "names": names,
        "classes": list(known.classes),
        "have": [[row.name, row.label, row.split] for row in known.rows] if same else [],
        "store": f"sslcli-pick-{identity}",
    }


def _sample(sample: PickedSample, preview: Preview) -> Html:
    return el(
        "article",
        el("div", _drawing(preview), class_="sample"),
        el(
            "dl",
            *(
                part
                for word, text in (
                    ("sample", sample.name),
                    ("rank", f"{sample.rank}, stratum {sample.stratum}"),
                    ("why", capitalize(sample.reason)),
                )
                for part in (el("dt", word), el("dd", text))
            ),
        ),
        aria_label=f"Sample {sample.rank}",
    )


def _drawing(preview: Preview) -> Html:
    if not preview.graphic:
        return Html(preview.html())
    zoom = max(1.0, SHORTEST / max(preview.size))
    drawn = embedded(to_png(preview.image(*(round(zoom * side) for side in preview.size))), HEAVY)
    assert drawn is not None
    uri, (width, height) = drawn
    return join([el("img", src=uri, alt=preview.text(), width=width, height=height), Html(preview.player() or "")])


def _own(name: str) -> str:
    return (files("sslcli.pick") / name).read_text(encoding="utf-8")
