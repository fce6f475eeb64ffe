"""The page of an audit: what was found, with the samples of a pair side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sslcli.audit.audit import Audit
from sslcli.audit.findings import EXCLUDE, ISSUES, Finding
from sslcli.audit.samples import clean_views
from sslcli.console import plural
from sslcli.report.html.elements import capitalize, command_block, section
from sslcli.report.html.markup import Html, el
from sslcli.report.html.page import page
from sslcli.views import previews

MOST = 48  # findings that are shown of each issue
AT_ONCE = 64  # views in memory


def audit_page(audit: Audit, csv: str) -> str:
    """One self-contained HTML file. `csv`: the name of the CSV file, which has all findings."""
    name = audit.pool.dataset.name
    by_issue: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        by_issue.setdefault(finding.issue, []).append(finding)
    shown = [f for group in by_issue.values() for f in group[:MOST]]
    pictures = draw(audit, sorted({i for f in shown for i in (f.sample, f.partner) if i is not None}))
    sections = [_section(audit, issue, group, pictures) for issue, group in by_issue.items()]
    return page(f"Audit of {name}", [_absent(audit.absent), *sections], _top(audit, csv))


def draw(audit: Audit, samples: list[int]) -> dict[int, Html]:
    """The previews of samples that can be read, as HTML."""
    pool = audit.pool
    found: dict[int, Html] = {}
    for part in torch.tensor(samples, dtype=torch.int64).split(AT_ONCE):
        for ids, x in clean_views(pool, audit.data, part) if len(part) else ():
            shown = previews(pool.dataset, x, pool.source, ids)
            found |= {i: Html(p.html()) for i, p in zip(ids.tolist(), shown, strict=True)}
    return found


def _top(audit: Audit, csv: str) -> Html:
    pool = audit.pool
    splits = ", ".join(f"{len(source):,} {name}" for name, source in pool.splits.items())
    tiles = [
        el("li", el("span", _title(issue), class_="what"), el("span", f"{count:,}", class_="figure"))
        for issue, count in audit.counts().items()
    ]
    return el(
        "section",
        el("h1", f"Audit of {pool.dataset.name}"),
        el("p", f"{plural(len(pool), 'sample')}: {splits}. All findings are in {csv}.", class_="under"),
        el("ul", *tiles, class_="tiles") if tiles else el("p", "No problems found."),
        el("ul", *(el("li", f"{capitalize(note)}.") for note in audit.notes), class_="notes"),
        el("p", "Nothing was deleted. To leave out the rows whose suggestion is exclude, edit the file and give"),
        command_block(f"dataset.exclude={csv}"),
    )


def _title(issue: str) -> str:
    return capitalize(issue.replace("_", " "))


def _section(audit: Audit, issue: str, findings: list[Finding], pictures: dict[int, Html]) -> Html | None:
    more = f" The first {MOST} of {len(findings):,} are shown." if len(findings) > MOST else ""
    about = ISSUES.get(issue, "what the sample shows; score: see the guide")
    return section(
        issue,
        f"{_title(issue)}: {len(findings):,}",
        el("p", f"{capitalize(about)}.{more}", class_="note"),
        el("div", *(_finding(audit, f, pictures) for f in findings[:MOST]), class_="findings"),
    )


def _absent(files: dict[str, str]) -> Html | None:
    """Files without a sample."""
    if not files:
        return None
    more = f" The first {MOST} are shown." if len(files) > MOST else ""
    shown = [
        el("article", el("p", el("code", name)), el("p", f"{EXCLUDE}; {why}", class_="note"), class_="finding")
        for name, why in sorted(files.items())[:MOST]
    ]
    return section(
        "absent",
        f"Files without a sample: {len(files):,}",
        el("p", f"They are not read, and are no part of the data set.{more}", class_="note"),
        el("div", *shown, class_="findings"),
    )


def _finding(audit: Audit, finding: Finding, pictures: dict[int, Html]) -> Html:
    return el(
        "article",
        el("div", *_samples(audit, finding, pictures), class_="pair"),
        el("p", f"{finding.score:.3g} · {finding.suggestion}", class_="note"),
        class_="finding",
    )


def _samples(audit: Audit, finding: Finding, pictures: dict[int, Html]) -> Iterator[Html]:
    for sample in (finding.sample, finding.partner):
        if sample is None:
            continue
        label = audit.pool.label(sample)
        yield el(
            "figure",
            pictures.get(sample, el("p", "not readable", class_="preview")),
            el("figcaption", el("code", audit.pool.names[sample]), f" {label}" if label else None),
        )
