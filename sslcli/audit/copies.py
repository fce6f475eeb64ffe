"""Exact and near copies of samples, within splits and across them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.audit.findings import CHECK, EXCLUDE, Finding
from sslcli.audit.pool import Pool
from sslcli.data.samples.digests import digests
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.runtime.progress import track
from sslcli.views.copies import NearCopies

NEIGHBORS = 5  # of each sample, and of each of its variants, that are compared with it
PAIRS = 256  # compared at a time

Views = Callable[[Tensor], Tensor]  # the clean views (m, *shape) of samples (m,)


def exact_copies(pool: Pool, readable: Tensor, doubt: str | None = None) -> list[Finding]:
    """All samples (m,) of `readable` whose content equals that of another one. `doubt`: see `Modality.doubts_copies`."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    hashes = [d for source in pool.splits.values() for d in digests(source)]
    for sample in readable.tolist():
        groups[hashes[sample]].append(sample)
    return [f for group in groups.values() if len(group) > 1 for f in _findings(pool, group, "exact_copy", {}, doubt)]


def near_copies(pool: Pool, rule: NearCopies, ids: Tensor, descriptors: Tensor, views: Views) -> list[Finding]:
    """All samples that are near copies of another one by the rule of their modality. `ids` (n,): of the `descriptors` (n, p), of
    samples that are no exact copies of others."""
    pairs = candidate_pairs(rule, descriptors)
    if not len(pairs):
        return []
    similarity, certain = [], []
    for part in track(pairs.split(PAIRS), "comparing pairs", len(pairs), size=len):
        needed, place = ids[part].unique(return_inverse=True)
        x = views(needed)
        similarity.append(rule.similarity(x[place[:, 0]], x[place[:, 1]]).cpu())
        alike = similarity[-1] >= rule.threshold
        if bool(alike.any()):
            certain.append(rule.confirmed(x[place[alike, 0]], x[place[alike, 1]]).cpu())
    scores = torch.cat(similarity)
    same = scores >= rule.threshold
    found = {tuple(pair): score for pair, score in zip(ids[pairs[same]].tolist(), scores[same].tolist(), strict=True)}
    confirmed = [pair for pair, sure in zip(found, torch.cat(certain).tolist() if found else (), strict=True) if sure]
    sure = _of_groups(pool, confirmed, found, None)
    gone = {f.sample for f in sure}
    others = [pair for pair in found if pair not in set(confirmed) and not gone & set(pair)]
    return [*sure, *_of_groups(pool, others, found, rule.doubt)]


def _of_groups(
    pool: Pool, pairs: list[tuple[int, int]], found: dict[tuple[int, int], float], doubt: str | None
) -> list[Finding]:
    scores = {pair: found[pair] for pair in pairs}
    return [f for group in connected(pairs) for f in _findings(pool, group, "near_copy", scores, doubt)]


def candidate_pairs(rule: NearCopies, descriptors: Tensor) -> Tensor:
    """Pairs (m, 2) of rows i < j of the descriptors (n, p) that are among each other's nearest neighbors, variants included."""
    n = len(descriptors)
    k = min(NEIGHBORS + 1, n)
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for variant in rule.variants(descriptors):
        cosine, near = nearest_neighbors(descriptors, variant, k)
        row, column = torch.nonzero(cosine >= rule.candidate, as_tuple=True)
        found.append(torch.stack([row, near[row, column]], dim=1))
    pairs = torch.cat(found).sort(dim=1).values
    return pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0)


def connected(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The groups of samples that pairs connect, each in ascending order."""
    group_of: dict[int, list[int]] = {}
    for a, b in pairs:
        first, second = group_of.get(a, [a]), group_of.get(b, [b])
        if first is not second or len(first) == 1:
            merged = sorted({*first, *second})
            group_of.update(dict.fromkeys(merged, merged))
    return sorted({id(g): g for g in group_of.values()}.values())


def _findings(
    pool: Pool, group: list[int], issue: str, scores: dict[tuple[int, int], float], doubt: str | None = None
) -> list[Finding]:
    """A finding for each sample of a group of copies but the one to keep: the first test sample, else the first. `scores`: of the
    pairs that were compared; without them, all are equal. `doubt`: why they are only to be looked at; None where they may be left
    out."""
    test = pool.is_test
    kept = min(group, key=lambda i: (not test[i], i))
    found = []
    for sample in group:
        if sample == kept:
            continue
        across = bool(test[kept]) and not test[sample]
        near = {other: scores.get((min(sample, other), max(sample, other))) for other in group if other != sample}
        known = {other: score for other, score in near.items() if score is not None} or {kept: 1.0}
        partner = max(known, key=lambda other: (across and bool(test[other]), known[other], -other))
        labels = [pool.label(sample), pool.label(partner)]
        differ = all(labels) and labels[0] != labels[1]
        suggestion = EXCLUDE if doubt is None else f"{CHECK}; {doubt}" if doubt else CHECK
        if differ:
            suggestion = f"{CHECK}; the labels differ: {labels[0]}, {labels[1]}"
        name = f"{issue}_across_splits" if across else issue
        found.append(Finding(sample, name, known[partner], suggestion, partner))
    return found
