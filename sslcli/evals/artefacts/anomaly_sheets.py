"""Artefacts of anomaly detection: AUROC by class, and the samples at both ends of the ranking."""

from __future__ import annotations

from typing import Any

from sslcli.evals.artefacts.figures import Dots
from sslcli.evals.artefacts.sample_sheets import Cell, Row, Sheet, thumbnails
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.fit.anomaly_protocols import AnomalyResult
from sslcli.rng import derive, order
from sslcli.views.preview.base import Preview

ROWS = 12  # classes in the sheet


def make_artefacts(results: dict[str, AnomalyResult], score: str, data: EvalData) -> dict[str, Any]:
    first = results[""]
    artefacts: dict[str, Any] = {}
    if first.each:
        artefacts["auroc.png"] = _dots(results, score)
    if first.csv:
        artefacts["scores.csv"] = first.csv
    if sheet := _sheet(first, score, data):
        artefacts["samples.png"] = sheet
    return artefacts


def _dots(results: dict[str, AnomalyResult], score: str) -> Dots:
    first = results[""]
    words = {"": "this backbone", "raw": "raw inputs", "untrained": "untrained backbone", "given": "given weights"}
    if len(first.names) > 1:
        values = {words[kind]: f.each["auroc"][score] for kind, f in results.items() if score in f.each["auroc"]}
        title = f"AUROC by {score}, each class as the normal one"
        names = first.names
    else:  # one row per score
        names = list(first.each["auroc"])
        values = {
            words[kind]: [f.each["auroc"].get(name, [float("nan")])[0] for name in names] for kind, f in results.items()
        }
        title = f"AUROC where {first.names[0]} is normal"
    mean = {kind: sum(v) / len(v) for kind, v in values.items()}
    means_text = ", ".join(f"{kind} {value:.3f}" for kind, value in mean.items() if value == value)
    return Dots(names, values, title, f"{title}; means: {means_text}; .5 is chance")


def _sheet(first: AnomalyResult, score: str, data: EvalData) -> Sheet | None:
    shown = first.ends
    of = "samples" if any(part == "train" for part, _ in first.samples) else "test samples"
    title = f"{of} with the lowest and the highest anomaly score ({score})"
    if len(shown) > ROWS:
        shown = [shown[i] for i in order(derive(data.seed, "shown"), 0, len(shown))[:ROWS].sort().values.tolist()]
        title += f" ({ROWS} of {len(first.ends):,} classes)"
    if not any(end.rows for end in shown):
        return None
    wanted = {first.samples[i] for end in shown for i in end.rows}
    samples: dict[tuple[Split, int], Preview] = {}
    for split in sorted({split for split, _ in wanted}):
        ids = sorted(i for part, i in wanted if part == split)
        samples |= {(split, i): sample for i, sample in thumbnails(data, split, ids).items()}
    rows, wrong = [], 0
    for end in shown:
        marks = [False] * len(end.rows) if end.misranked is None else end.misranked
        wrong += sum(marks)
        cells = [
            Cell(samples[first.samples[i]], "wrong" if mark else "")
            for i, mark in zip(end.rows, marks, strict=True)
            if first.samples[i] in samples
        ]
        rows.append(Row(end.title, end.about, cells))
    caption = f"{title}: least anomalous at the left, most anomalous at the right"
    if shown[0].misranked is not None:
        caption += f"; {wrong or 'none'} of {sum(len(e.rows) for e in shown)} {'is' if wrong == 1 else 'are'} misranked"
    return Sheet(
        title,
        rows,
        caption,
        ("least anomalous", "most anomalous"),
        len(shown[0].rows) // 2,
        ("", "misranked") if wrong else None,
    )
