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
    """Returns `knn/top1` (where there are labels), `spread` and `rankme` of *training* samples; the test split is not read.

    At most `queries` samples (a fifth of a small set) are classified by at most `bank` others. The choice of samples depends
    on the training split alone, so curves of different runs and epochs are comparable. Where samples have groups (windows
    of one recording), whole groups are classified.
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
        is_query = torch.isin(ids, shuffled[:ask])  # unreadable samples may be missing
        if is_query.any() and not is_query.all():
            predicted = classify(unit[~is_query], y[~is_query], unit[is_query], k, temperature, device)
            metrics = {"knn/top1": float((predicted == y[is_query]).double().mean())} | metrics
    return metrics


def _by_group(shuffled: Tensor, groups: Tensor, ask: int) -> tuple[Tensor, int]:
    """The samples sorted by group, in the order of first occurrence, and the size of the first groups that together hold at least
    `ask` samples (`ask` itself where there is a single group)."""
    of = groups[shuffled]
    rank: dict[int, int] = {}
    for g in of.tolist():
        rank.setdefault(g, len(rank))
    place = torch.tensor([rank[g] for g in of.tolist()])
    sizes = torch.bincount(place).cumsum(0)
    return shuffled[place.argsort(stable=True)], int(sizes[int((sizes < ask).sum())]) if len(sizes) > 1 else ask


def _known(labels: Tensor | None) -> Tensor | None:
    """Mask (n,) of the samples with a label, or None for fewer than two, in which case all samples are used."""
    if labels is None or int((labels >= 0).sum()) < 2:
        return None
    return labels >= 0
