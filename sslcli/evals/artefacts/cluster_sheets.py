"""Artefacts of a clustering: the assignment, the table of clusters by classes, and exemplars of each cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sslcli.evals.artefacts.figures import Grid
from sslcli.evals.artefacts.sample_sheets import Cell, Row, Sheet, class_name, thumbnails
from sslcli.evals.artefacts.tables import Csv, Table
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.fit.clustering import Clustering
from sslcli.evals.metrics.agreement import contingency, matching
from sslcli.views.modality import Terms, modality

EXEMPLARS = 8  # samples of a cluster in the sheet
TERMS = 10  # words of a cluster
SHOWN = 24  # clusters in the sheet, the largest


def make_artefacts(first: Clustering, points: Tensor, y_true: Tensor, data: EvalData, split: Split) -> dict[str, Any]:
    """Of the first seed: the assignment of every sample, exemplars, and where there are labels the table."""
    artefacts: dict[str, Any] = {"assignment.csv": _assignment(first, data, split)}
    names = data.dataset.classes
    if bool((y_true >= 0).any()):
        artefacts["table.png"] = _grid(contingency(first.queries, y_true, first.clusters, len(names)), names)
    if first.clusters:
        chosen = exemplars(points, first.queries, first.clusters)
        title = f"{split} samples nearest to the centre of each cluster"
        artefacts["exemplars.png"] = exemplar_sheet(chosen, first.queries, first.clusters, y_true, data, split, title)
    return artefacts


def cluster_terms(first: Clustering, data: EvalData, split: Split) -> Terms | None:
    """The words that characterize each cluster of the samples of a split; None where samples have no words."""
    source = data.source(split)
    groups = torch.full((len(source),), -1)
    groups[data.ids(split)] = first.queries.cpu()
    terms = modality(data.dataset.modality).terms(source, groups, data.dataset, TERMS)
    if terms is None:
        return None
    empty = first.clusters - len(terms.of_groups)  # the last clusters, which no sample of the split is in
    return replace(terms, of_groups=[*terms.of_groups, *([] for _ in range(empty))])


def term_table(terms: Terms, first: Clustering, y_true: Tensor, data: EvalData) -> Table:
    """A row a cluster, the largest first: its size, its most frequent class, and its words."""
    names = data.dataset.classes
    labeled = bool((y_true >= 0).any())
    counts = contingency(first.queries, y_true, first.clusters, len(names)) if labeled else None
    sizes = first.queries[first.queries >= 0].bincount(minlength=first.clusters)
    rows = []
    for c in sizes.argsort(descending=True, stable=True).tolist():
        words = ", ".join(word for word, _ in terms.of_groups[c])
        row = [f"cluster {c}", int(sizes[c])]
        if counts is not None:
            total, most = int(counts[c].sum()), int(counts[c].argmax())
            row.append(f"{float(counts[c, most] / total):.0%} {class_name(names, most)}" if total else "")
        rows.append((*row, words))
    head = ("cluster", "samples", *(["most frequent class"] if labeled else []), "words")
    return Table(head, rows, f"the words that characterize each cluster ({terms.note})")


def _assignment(first: Clustering, data: EvalData, split: Split) -> Csv:
    parts: list[tuple[Split, Tensor]] = [("train", first.train)]
    if split == "test":
        parts.append(("test", first.queries))
    rows = [
        (part, data.source(part).name_of(i), c)
        for part, assigned in parts
        for i, c in zip(data.ids(part).tolist(), assigned.tolist(), strict=True)
    ]
    return Csv(("split", "sample", "cluster"), rows, f"the cluster of each of {len(rows):,} samples; -1 is noise")


def _grid(counts: Tensor, names: tuple[str, ...]) -> Grid:
    """Clusters in the order of the classes they are matched with."""
    clusters, classes = matching(counts[:-1])
    order = clusters[classes.argsort()].tolist()
    rest = [int(c) for c in counts[:-1].sum(dim=1).argsort(descending=True) if int(c) not in set(order)]
    rows = [*order, *rest, *([len(counts) - 1] if int(counts[-1].sum()) else [])]
    right, total = int(counts[clusters, classes].sum()), int(counts.sum())
    titles = [f"cluster {c}" if c < len(counts) - 1 else "noise" for c in rows]
    of = [class_name(names, i) for i in range(counts.shape[1])]
    words = f"{right / total:.1%} of {total:,} samples lie where cluster and class are matched"
    return Grid(
        counts[rows],
        titles,
        of,
        words,
        f"clusters (rows) by classes (columns), as shares of each cluster: {words}",
        column_label="class",
    )


def exemplar_sheet(
    chosen: list[Tensor], assigned: Tensor, clusters: int, y_true: Tensor, data: EvalData, split: Split, title: str
) -> Sheet:
    """A row a cluster, the largest first: its `chosen` rows, how many samples it has, and which class is most among them."""
    names, ids = data.dataset.classes, data.ids(split)
    counts = contingency(assigned, y_true, clusters, len(names)) if bool((y_true >= 0).any()) else None
    sizes = assigned[assigned >= 0].bincount(minlength=clusters)
    shown = [c for c in sizes.argsort(descending=True, stable=True).tolist() if sizes[c]][:SHOWN]
    samples = thumbnails(data, split, [int(i) for c in shown for i in ids[chosen[c]]])
    rows = []
    for c in shown:
        cells = [Cell(samples[i]) for i in ids[chosen[c]].tolist() if i in samples]
        about = f"{int(sizes[c]):,} samples"
        if counts is not None and int(counts[c].sum()):
            most = int(counts[c].argmax())
            about += f", {float(counts[c, most] / counts[c].sum()):.0%} are {class_name(names, most)}"
        if cells:
            rows.append(Row(f"cluster {c}", about, cells))
    of = f"{len(rows)}" if len(rows) == clusters else f"the {len(rows)} largest of {clusters:,}"
    title = f"{title} ({of} clusters)"
    about_all = "; ".join(f"{row.title}: {row.about}" for row in rows[:12])
    return Sheet(title, rows, f"{title}: {about_all}")


def most_probable(probabilities: Tensor, count: int = EXEMPLARS) -> list[Tensor]:
    """Of each cluster the rows of (n, K) that are likeliest in it and have no likelier one, the most_probable first."""
    best, assigned = probabilities.max(dim=1)
    rows_of_clusters = []
    for c in range(probabilities.shape[1]):
        members = (assigned == c).nonzero().flatten()
        rows_of_clusters.append(members[best[members].argsort(descending=True, stable=True)[:count]])
    return rows_of_clusters


def exemplars(x: Tensor, assignment: Tensor, clusters: int, count: int = EXEMPLARS) -> list[Tensor]:
    """Of each cluster the rows of x (n, p) that are nearest to the mean of its samples, nearest first."""
    rows_of_clusters = []
    for c in range(clusters):
        members = (assignment == c).nonzero().flatten()
        inside = x[members]
        away = (inside - inside.mean(dim=0)).square().sum(dim=1) if len(members) else inside.sum(dim=1)
        rows_of_clusters.append(members[away.argsort(stable=True)[:count]])
    return rows_of_clusters
