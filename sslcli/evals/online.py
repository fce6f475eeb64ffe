"""The short evaluation that runs during training, on training samples alone."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.dataset import Dataset
from sslcli.evals.base.embedding import Context, embed_train_samples
from sslcli.evals.fit.neighbors import classify
from sslcli.evals.metrics.geometry import rankme
from sslcli.nn.stats import spread
from sslcli.rng import derive, order


def online(
    backbone: nn.Module,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    workers: int = 0,
    autocast: Context = nullcontext,
    channels_last: bool = False,
    k: int = 20,
    temperature: float = 0.1,
    bank: int = 10_000,
    queries: int = 2_000,
) -> dict[str, float]:
    """A quick look while training, at *training* samples only: `knn/top1` (where there are labels), `spread`, `rankme`.

    At most `queries` samples (a fifth of a small set) are classified by at most `bank` others; which ones depends on
    the training split alone, so curves of different runs and epochs compare. Where samples have groups (windows of one
    recording) whole groups are classified. The test split is not read.
    """
    source = dataset.train
    shuffled = order(derive("online"), 0, len(source))
    known = _known(source.labels)
    if known is not None:
        shuffled = shuffled[known[shuffled]]
    ask = min(queries, max(1, len(shuffled) // 5))
    if source.groups is not None:
        shuffled, ask = _by_group(shuffled, source.groups, ask)
    ids = shuffled[: ask + bank]
    x, ids = embed_train_samples(
        backbone, dataset, ids, device=device, workers=workers, autocast=autocast, channels_last=channels_last
    )
    metrics = {"spread": float(spread(x)), "rankme": rankme(x)}
    if source.labels is not None and known is not None and len(x) > 1:
        y = source.labels[ids].to(torch.int64)
        unit = F.normalize(x, dim=1)
        asked = torch.isin(ids, shuffled[:ask])  # unreadable samples may be missing
        if asked.any() and not asked.all():
            found = classify(unit[~asked], y[~asked], unit[asked], k, temperature, device)
            metrics = {"knn/top1": float((found == y[asked]).double().mean())} | metrics
    return metrics


def _by_group(shuffled: Tensor, groups: Tensor, ask: int) -> tuple[Tensor, int]:
    """The same samples group by group, the groups in the order in which they first come, and of how many of them the first groups
    with at least `ask` samples consist (all of one group where there is no other)."""
    of = groups[shuffled]
    rank: dict[int, int] = {}
    for g in of.tolist():
        rank.setdefault(g, len(rank))
    place = torch.tensor([rank[g] for g in of.tolist()])
    sizes = torch.bincount(place).cumsum(0)
    return shuffled[place.argsort(stable=True)], int(sizes[int((sizes < ask).sum())]) if len(sizes) > 1 else ask


def _known(labels: Tensor | None) -> Tensor | None:
    """(n,) bool: which samples have a label; None when fewer than two do, so that unlabelled data can still be seen."""
    if labels is None or int((labels >= 0).sum()) < 2:
        return None
    return labels >= 0
