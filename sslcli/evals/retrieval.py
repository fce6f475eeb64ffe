"""Retrieval: each query ranks the gallery by cosine similarity; samples of the same class are relevant.

Nothing is fitted. Queries are test samples; the gallery is the training split, or the other test samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.errors import DataError, RequestError
from sslcli.evals.artefacts.sample_sheets import Cell, Mark, Row, Sheet, class_name, thumbnails
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.fit.clustering import float64_device
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.rng import derive, order
from sslcli.runs import Record

KS = (1, 5, 10)
BLOCK = 1 << 24  # similarities at a time: 64 MB, and some tables of the same size
ROWS, SHOWN = 10, 8  # queries and neighbors in the image


def retrieval(backbone: nn.Module, data: EvalData, *, gallery: str = "train", baselines: Baselines = True) -> Result:
    """`map`, `map_at_r`, `r_precision`, `recall@1`, `@5`, `@10`, `precision@5`, `@10`: means over queries; the same with
    `raw.` and `untrained.`. Right is what is of the query's class; R is how many such the gallery holds.

    - map: average precision of the whole ranking, as scikit-learn's `average_precision_score`.
    - map_at_r: average precision of the first R, over R (Musgrave, Belongie & Lim, "A Metric Learning Reality Check",
      ECCV 2020); r_precision: the share of right ones among the first R.
    - recall@k: the share of queries with at least one right one among the first k, as in metric learning (not the share
      of R that is found); precision@k: the share of right ones among the first k; with k of 1 they are the same.

    Equal similarities: in map and map_at_r a right one has the last place of all that are equal to it, whoever they are; for
    the others the mean over all orders of equals is taken (McSherry & Najork, ECIR 2008). So no number depends on the
    order of the data. Queries whose class is not in the gallery are left out, as is what has no label. Without labels there is
    the image only.
    """
    subsets.check_classes(data.dataset)
    if gallery not in ("train", "test"):
        raise RequestError(f"evaluator.gallery={gallery}: expected train or test", "evaluator.gallery=train")
    split: Split = "train" if gallery == "train" else "test"
    data.source("test")  # raises before any feature is computed
    metrics: dict[str, float] = {}
    protocol: Record = {}
    artefacts: dict[str, Any] = {}
    notes: list[str] = []
    for kind, features in data.feature_sets(backbone, baselines).items():
        (bank, y), (queries, y_true) = features(split), features("test")
        exclude_self = split == "test"
        labeled = bool((y >= 0).any()) and bool((y_true >= 0).any())
        if kind == "":
            artefacts["neighbours.png"] = _sheet(bank, y, queries, y_true, split, data)
            protocol = {
                "gallery": split,
                "similarity": "cosine",
                "queries": "test samples",
                "itself": "left out of its own ranking" if exclude_self else "not in the gallery",
                "dim": bank.shape[1],
            }
        if not labeled:
            notes.append(f"{data.dataset.name} has no labels: there is an image and no metric")
            break
        ranking = rank(bank, y, queries, y_true, float64_device(data.device), exclude_self)
        prefix = f"{kind}." if kind else ""
        metrics |= {prefix + name: float(values.mean()) for name, values in ranking.scores.items()}
        if kind == "":
            protocol["splits"] = {"gallery": ranking.gallery, "queries": ranking.queries}
            if ranking.without:
                notes.append(f"{ranking.without} labelled queries have no other sample of their class in the gallery")
    protocol["notes"] = data.protocol_notes(baselines, notes)
    return Result(metrics, protocol, artefacts)


@dataclass
class Ranking:
    """Numbers for each query, in no particular order, and how many there were."""

    scores: dict[str, Tensor]  # name -> (queries,) float64
    gallery: int
    queries: int
    without: int


def rank(
    bank: Tensor, y: Tensor, queries: Tensor, y_true: Tensor, device: torch.device, exclude_self: bool = False
) -> Ranking:
    """Every measure of every query. bank (n, d) of classes y (n,); queries (q, d) of classes truth (q,); -1 is no class.

    `itself`: the queries are the gallery, and each is left out of its own ranking. Memory is bounded whatever the sizes.
    """
    members = (y >= 0).nonzero().flatten()
    members = members[y[members].argsort(stable=True)]  # a class is a stretch of columns
    labelled_queries = (y_true >= 0).nonzero().flatten()
    counts = y[members].bincount(minlength=int(y_true.max()) + 1)
    n_relevant = counts[y_true[labelled_queries]] - int(exclude_self)
    queries_with_match = labelled_queries[n_relevant > 0]
    if len(queries_with_match) == 0:
        raise DataError("no labelled test sample has another of its class in the gallery", "sslcli data inspect")
    ends = counts.cumsum(0)
    gallery = F.normalize(bank[members], dim=1).to(device)
    column = torch.empty(len(y), dtype=torch.int64)
    column[members] = torch.arange(len(members))
    size = max(1, BLOCK // len(gallery))
    room = torch.empty(min(size, len(queries_with_match)) * len(gallery), device=device)
    parts: list[dict[str, Tensor]] = []
    for c, rows in _query_blocks(y_true, queries_with_match, size):
        part = F.normalize(queries[rows], dim=1).to(device)
        table = room[: len(part) * len(gallery)].view(len(part), len(gallery))
        torch.mm(part, gallery.T, out=table)
        if exclude_self:
            table.scatter_(1, column[rows, None].to(device), -torch.inf)
        relevant = table[:, int(ends[c] - counts[c]) : int(ends[c])].clone()
        parts.append(query_metrics(sort_rows(table), sort_rows(relevant), int(exclude_self)))
    scores = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    return Ranking(scores, len(members), len(queries_with_match), len(labelled_queries) - len(queries_with_match))


def _query_blocks(y_true: Tensor, queries_with_match: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Queries of one class at a time, at most `size` of them."""
    for c in y_true[queries_with_match].unique().tolist():
        for rows in queries_with_match[y_true[queries_with_match] == c].split(size):
            yield c, rows


def sort_rows(table: Tensor) -> Tensor:
    """Each row ascending, in place where it can be: numpy sorts floats several at once."""
    if table.device.type != "cpu":
        return table.sort(dim=1).values
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda part: part.numpy().sort(axis=1), table.chunk(torch.get_num_threads())))
    return table


def query_metrics(similarities: Tensor, relevant: Tensor, skipped: int) -> dict[str, Tensor]:
    """All numbers of q queries of one class: similarities of the gallery (q, n) and of what is right (q, R), both sorted
    ascending, of which the first `skipped` do not count."""
    similarities, relevant = similarities[:, skipped:].contiguous(), relevant[:, skipped:].contiguous()
    n, r = similarities.shape[1], relevant.shape[1]
    place = n - torch.searchsorted(similarities, relevant)  # (q, R): of the last one that is as similar
    hits = r - torch.searchsorted(relevant, relevant)
    precision = hits.double() / place
    ranking = {"map": precision.mean(dim=1), "map_at_r": precision.masked_fill(place > r, 0.0).mean(dim=1)}
    ranking["r_precision"] = hits_at(similarities, relevant, r)[0] / r
    for k in KS:
        if k <= n:
            expected, any_ = hits_at(similarities, relevant, k)
            ranking |= {f"recall@{k}": any_} | ({f"precision@{k}": expected / k} if k > 1 else {})
    return {name: values.cpu() for name, values in ranking.items()}


def hits_at(similarities: Tensor, relevant: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the k most similar: how many are right, and whether any is, (q,) float64 each; the mean over orders of equals."""
    last = similarities[:, -k, None].contiguous()

    def counted(table: Tensor) -> tuple[Tensor, Tensor]:
        above = table.shape[1] - torch.searchsorted(table, last, right=True)[:, 0]
        return above, table.shape[1] - torch.searchsorted(table, last)[:, 0] - above

    above, equal = counted(similarities)
    n_certain, n_tied = counted(relevant)
    places = k - above  # for which `equal` compete, of whom `maybe` are right
    expected = n_certain + places * n_tied / equal.double()
    none = torch.ones_like(expected)
    for i in range(k if k in KS else 0):
        none *= torch.where(i < places, (equal - n_tied - i).clamp(min=0).double() / (equal - i).clamp(min=1), 1.0)
    return expected, torch.where(n_certain > 0, 1.0, 1 - none)


def _sheet(bank: Tensor, y: Tensor, queries: Tensor, y_true: Tensor, split: Split, data: EvalData) -> Sheet:
    """Queries nobody chose, one a class where there are labels, and their nearest."""
    shuffled = order(derive(data.seed, "retrieval"), 0, len(queries))
    has_labels = bool((y >= 0).any()) and bool((y_true >= 0).any())
    if has_labels:
        of = y_true[shuffled]
        firsts = [int(shuffled[of == c][0]) for c in y_true[y_true >= 0].unique().tolist()]
        chosen = [firsts[i] for i in order(derive(data.seed, "classes"), 0, len(firsts))[:ROWS].sort().values.tolist()]
    else:
        chosen = shuffled[:ROWS].tolist()
    count = min(SHOWN + (split == "test"), len(bank))
    normalized_queries = F.normalize(queries[chosen], dim=1)
    _, near = nearest_neighbors(F.normalize(bank, dim=1), normalized_queries, count, data.device)
    of_gallery, of_test = data.ids(split), data.ids("test")
    nearest = {
        q: [j for j in row if split == "train" or j != q][:SHOWN] for q, row in zip(chosen, near.tolist(), strict=True)
    }
    images = thumbnails(data, split, [int(of_gallery[j]) for row in nearest.values() for j in row])
    labelled_queries = thumbnails(data, "test", [int(of_test[q]) for q in chosen])
    rows, relevant, of_all = [], 0, 0
    for q, row in nearest.items():
        if int(of_test[q]) not in labelled_queries:
            continue
        cells = [Cell(labelled_queries[int(of_test[q])])]
        hits = [bool(y[j] == y_true[q]) for j in row]
        for j, hit in zip(row, hits, strict=True):
            mark: Mark = "" if not has_labels else "right" if hit else "wrong"
            if int(of_gallery[j]) in images:
                cells.append(Cell(images[int(of_gallery[j])], mark))
        title, about = data.source("test").name_of(int(of_test[q])), ""
        if has_labels:
            title = class_name(data.dataset.classes, int(y_true[q]))
            about = f"{sum(hits)} of {len(hits)} of the same class"
        relevant, of_all = relevant + sum(hits), of_all + len(hits)
        rows.append(Row(title, about, cells))
    title = f"test samples and what is nearest to them in the {split} split"
    caption = f"{title}, by cosine" + (f": {relevant} of {of_all} are of the same class" if has_labels else "")
    legend = ("of the same class", "of another class") if has_labels else None
    return Sheet(title, rows, caption, ("query", "nearest first"), 1, legend)
