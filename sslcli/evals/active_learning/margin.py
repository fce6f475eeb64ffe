"""Margin sampling: the samples whose two most probable classes are closest (Scheffer, Decomain & Wrobel, IDA 2001).

The probabilities are those of the linear probe of `sslcli eval probe`, fitted to the labeled samples.
"""

from __future__ import annotations

import torch

from sslcli.errors import DataError
from sslcli.evals.active_learning.pool import Pick, Pool
from sslcli.evals.fit.linear_probe import fit_linear_probe
from sslcli.evals.inputs.label_subsets import Amount


def uncertain(pool: Pool, n: int, seed: int) -> list[Pick]:
    """The first n picks. Raises DataError where fewer than two classes have a label."""
    present = len(pool.labels[pool.labeled].unique())
    if present < 2:
        raise DataError(
            f"by=uncertain fits a classifier to the labeled samples, and these have {present} of at least 2 classes",
            "have=labels.csv with the labels so far; by=typical needs none",
        )
    probe = fit_linear_probe(pool.features, pool.labels, Amount("all"), seed, pool.classes)
    top = probe.logits(pool.features).softmax(dim=1).topk(2, dim=1)
    margin = (top.values[:, 0] - top.values[:, 1]).double()
    margin[pool.labeled] = torch.inf
    picks = []
    for i in margin.argsort(stable=True)[:n].tolist():
        one, other = (
            f"{_name(pool, int(probe.classes[c]))} ({p:.3f})"
            for p, c in zip(top.values[i].tolist(), top.indices[i].tolist(), strict=True)
        )
        picks.append(Pick(i, f"margin {float(margin[i]):.3f}: {one} or {other}"))
    return picks


def _name(pool: Pool, label: int) -> str:
    return pool.classes[label] if label < len(pool.classes) else str(label)
