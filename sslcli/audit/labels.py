"""Likely wrong labels, by confident learning on out-of-fold probabilities of a linear probe."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.audit.findings import Finding
from sslcli.audit.pool import Pool
from sslcli.console import escape, plural
from sslcli.errors import listing
from sslcli.evals.fit.linear_probe import C_GRID, CHOICE_TOLERANCE, FOLDS, Standardizer, choose_c
from sslcli.evals.fit.logistic import Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.runtime.progress import track

MOST = 0.2  # of the labels: where more seem wrong, the features do not separate the classes


def wrong_labels(pool: Pool, ids: Tensor, features: Tensor, seed: int) -> tuple[list[Finding], list[str]]:
    """Findings, and notes on what could not be judged. `ids` (n,): of the `features` (n, d)."""
    y = pool.labels[ids]
    labeled = torch.nonzero(y >= 0).flatten()
    classes, place, counts = y[labeled].unique(return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return [], ["labels were not judged: fewer than two classes have labels"]
    if int((counts >= FOLDS).sum()) < 2:
        return [], [f"labels were not judged: fewer than two classes have {FOLDS} labeled samples"]
    groups = pool.source.groups
    p, fitted = out_of_fold(
        features[labeled], place, len(classes), seed, None if groups is None else groups[ids[labeled]]
    )
    judged = fitted & (counts[place] >= FOLDS)
    rare, one_group = counts < FOLDS, place[judged].bincount(minlength=len(classes)) == 0
    notes = [
        f"labels of {named(pool, classes, which)} were not judged: {why}"
        for which, why in (
            (rare, f"fewer than {FOLDS} labeled samples"),
            (one_group & ~rare, "all are of one group"),
        )
        if which.any()
    ]
    suggested = confident_class(p, place, judged)
    rows = torch.nonzero(suggested >= 0).flatten()
    if len(rows) > MOST * int(judged.sum()):
        share = float((p.argmax(dim=1) == place)[judged].double().mean())
        return [], [
            f"labels were not judged: a linear probe agrees with {share:.0%} of them, too few to tell wrong labels from its own "
            "mistakes (run=RUN judges by the features of a run)"
        ]
    found = [
        Finding(
            int(ids[labeled[row]]),
            "wrong_label",
            float(p[row, suggested[row]]),
            f"relabel: {pool.class_name(int(classes[suggested[row]]))}",
        )
        for row in rows.tolist()
    ]
    return found, notes


def named(pool: Pool, classes: Tensor, which: Tensor) -> str:
    """`1 class (cat)`, of the classes (K,) where `which` (K,) is true."""
    names = [pool.class_name(c) for c in classes[which].tolist()]
    return f"{plural(len(names), 'class', 'classes')} ({listing(map(escape, names), 5)})"


def out_of_fold(x: Tensor, y: Tensor, classes: int, seed: int, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    """Probabilities (n, K) of features (n, d) with classes `y` (n,) in 0..K-1: each sample by a logistic regression that was fitted
    to the other folds. And whether these hold its class (n,), of which a group may have all samples."""
    z = Standardizer(x)(x, torch.arange(len(x)))
    strength = choose_c(z, y, classes, C_GRID, seed, 0, groups).value
    fold = subsets.folds(y, FOLDS, seed, 0, groups)
    p, fitted = torch.zeros(len(x), classes), torch.zeros(len(x), dtype=torch.bool)
    for f in track(range(FOLDS), "fold of the labels"):
        inside = fold != f
        present, place = y[inside].unique(return_inverse=True)
        fit = Logistic(z[inside], place, len(present)).fit(strength, CHOICE_TOLERANCE)
        held = torch.nonzero(~inside).flatten()
        p[held[:, None], present] = fit.logits(z[held]).softmax(dim=1).cpu()
        fitted[held] = torch.isin(y[held], present)
    return p, fitted


def confident_class(p: Tensor, y: Tensor, judged: Tensor) -> Tensor:
    """For out-of-fold probabilities p (n, K) and labels y (n,): the class (n,) that a sample belongs to with confidence where it
    differs from its label, else -1; -1 also where `judged` (n,) is false.

    Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021, arXiv:1911.00068, Eq. 1: a
    sample is confidently of class j if its probability of j is at least the mean probability of j among the samples labeled j; of
    several such classes the most probable one counts. Deviation: the mean is of the judged samples, and no sample is confidently
    of a class without any."""
    threshold = torch.full((p.shape[1],), torch.inf)
    for j in y[judged].unique().tolist():
        threshold[j] = p[judged & (y == j), j].mean()
    best, at = torch.where(p >= threshold, p, -1.0).max(dim=1)
    return at.where(judged & (best >= 0) & (at != y), -1)
