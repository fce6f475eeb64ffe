"""Three protocols of anomaly detection: with labels, without labels, and without a test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcli.errors import DataError, listing
from sslcli.evals import reconstruct
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base import method_outputs
from sslcli.evals.base.features import EvalData, Labelled, Split
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics import anomaly_metrics
from sslcli.rng import derive, order
from sslcli.runs import Record
from sslcli.runtime.progress import track

PRETRAINED = ("reconstruction", "objective")  # scores of the pretrained method
SHOWN = 5  # samples at each end of a ranking
DETAILED = 100  # classes; with more, the details hold the first score only
CALIBRATION = 0.2  # share of the training samples, for p-values without labels
ALPHA = 0.05
FOLDS, FEWEST_FOLDS = 5, 2  # of cross-fitting, without a test split
ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass
class NormalClass:
    """Classes that are normal together."""

    name: str
    classes: Tensor


@dataclass
class Extremes:
    """The samples with the lowest and the highest scores: rows of the features, and which of them are misranked, None without
    labels. If m samples are anomalous, the m highest ranks are theirs."""

    title: str
    about: str
    rows: list[int]
    misranked: list[bool] | None


@dataclass
class AnomalyResult:
    metrics: dict[str, float]
    protocol: Record
    names: list[str] = field(default_factory=list)
    each: dict[str, dict[str, list[float]]] = field(
        default_factory=dict
    )  # "auroc" -> score -> one value per normal class
    ends: list[Extremes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    csv: Csv | None = None
    samples: list[tuple[Split, int]] = field(default_factory=list)  # split and id of each row
    scores: dict[str, Tensor] = field(default_factory=dict)  # without labels: the scores (n,) of each row


def score_each_class(
    train: Labelled, test: Labelled, scorers: dict[str, ScoreFunction | None], groups: list[NormalClass], data: EvalData
) -> AnomalyResult:
    """One-class protocol: each group of classes is normal in turn, all other classes are anomalous."""
    (x, y), (queries, y_true) = train, test
    known = (y_true >= 0).nonzero().flatten()
    queries, y_true = queries[known], y_true[known]
    pretrained = {name: method_scores(data, name)[known] for name in scorers if name in PRETRAINED}
    result = AnomalyResult({}, {})
    each: dict[str, dict[str, list[float]]] = {"auroc": {}, "fpr95": {}}
    left_out = []
    for group in track(groups, "normal class"):
        members = torch.isin(y, group.classes).nonzero().flatten()
        anomalous = ~torch.isin(y_true, group.classes)
        if len(members) < 2 or bool(anomalous.all()) or not bool(anomalous.any()):
            left_out.append(group.name)
            continue
        normal = x[members]
        for at, (name, score) in enumerate(scorers.items()):
            s = pretrained[name] if score is None else score(normal, queries)
            each["auroc"].setdefault(name, []).append(anomaly_metrics.auroc(s, anomalous))
            each["fpr95"].setdefault(name, []).append(anomaly_metrics.fpr95(s, anomalous))
            if at == 0:
                rows = extreme_rows(s)
                about = f"AUROC {each['auroc'][name][-1]:.3f}"
                wrong = misranked(s, anomalous)[rows].tolist()
                ends = Extremes(f"normal: {group.name}", about, known[rows].tolist(), wrong)
        result.names.append(group.name)
        result.ends.append(ends)
    result.samples = [("test", i) for i in data.ids("test").tolist()]
    if not result.names:
        raise DataError(
            "no class has two training samples, and in the test split both samples of it and of others",
            "evaluator.normal=all ranks test samples without labels",
        )
    if left_out:
        result.notes.append(f"left out, too few samples: {listing(left_out)}")
    means = {name: {m: sum(by[name]) / len(result.names) for m, by in each.items()} for name in scorers}
    result.metrics |= means[next(iter(scorers))]
    result.metrics |= {f"{name}.{m}": mean for name, by in means.items() for m, mean in by.items()}
    detailed = list(scorers) if len(result.names) <= DETAILED else [next(iter(scorers))]
    result.each = {m: {name: [round(v, 5) for v in by[name]] for name in detailed} for m, by in each.items()}
    result.protocol = {
        "dim": x.shape[1],
        "splits": {"train": len(x), "test": len(known)},
        "normal_classes": len(result.names),
        "averaged": "over normal classes" if len(result.names) > 1 else "no",
    }
    return result


def rank_test_samples(
    train: Labelled, test: Labelled, scorers: dict[str, ScoreFunction | None], groups: list[NormalClass], data: EvalData
) -> AnomalyResult:
    """Protocol without labels: scores are fitted to training samples, and p-values calibrated on a held-out part of them."""
    x, queries = train[0], test[0]
    n_calibration = max(1, round(CALIBRATION * len(x)))
    if len(x) - n_calibration < 2:
        raise DataError(f"{len(x)} training samples are too few to fit anomaly scores")
    shuffled = order(derive(data.seed, "calibration"), 0, len(x))
    normal, both = x[shuffled[n_calibration:].sort().values], torch.cat([x[shuffled[:n_calibration]], queries])
    result = AnomalyResult(
        {},
        {
            "dim": x.shape[1],
            "splits": {"train": len(x) - n_calibration, "calibration": n_calibration, "test": len(queries)},
        },
    )
    table: dict[str, list[float]] = {}
    first = next(iter(scorers))
    for name, score in scorers.items():
        s = (
            score(normal, both)
            if score is not None
            else torch.cat([method_scores(data, name, "train")[shuffled[:n_calibration]], method_scores(data, name)])
        )
        p = anomaly_metrics.p_values(s[n_calibration:], s[:n_calibration])
        flagged = float((p <= ALPHA).double().mean())
        result.metrics |= {"flagged": flagged} if name == first else {}
        result.metrics[f"{name}.flagged"] = flagged
        table[f"{name}_p"], table[name] = p.tolist(), s[n_calibration:].tolist()
        result.scores[name] = s[n_calibration:]
        if name == first:
            ranking = s[n_calibration:].argsort(descending=True, stable=True).tolist()
            result.ends = [Extremes("test samples", f"by {name}", extreme_rows(s[n_calibration:]).tolist(), None)]
    if 1 / (1 + n_calibration) > ALPHA:
        result.notes.append(
            f"{n_calibration} calibration samples are too few to flag any sample: at least 19 are required"
        )
    source, ids = data.source("test"), data.ids("test").tolist()
    result.samples = [("test", i) for i in ids]
    rows = [
        [at + 1, source.name_of(ids[i]), *(f"{values[i]:.6g}" for values in table.values())]
        for at, i in enumerate(ranking)
    ]
    caption = (
        f"test samples by descending anomaly score ({first}); p: share of normal samples with a score at least as high"
    )
    result.csv = Csv(("rank", "sample", *table), rows, caption)
    return result


def rank_all_samples(
    train: Labelled, rest: Labelled, scorers: dict[str, ScoreFunction | None], groups: list[NormalClass], data: EvalData
) -> AnomalyResult:
    """Protocol without labels and test split: each sample is scored by a model fitted to the other folds."""
    parts: list[Split] = ["train"] if data.dataset.test is None else ["train", "test"]
    x = train[0] if len(parts) == 1 else torch.cat([train[0], rest[0]])
    n = len(x)
    if n < 2 * FEWEST_FOLDS:
        raise DataError(f"{n} samples are too few to fit anomaly scores")
    members = [data.groups(part) for part in parts]
    of = torch.cat([m for m in members if m is not None]) if all(m is not None for m in members) else None
    of = None if of is None or len(of.unique()) < FEWEST_FOLDS else of
    count = min(FOLDS, n // 2, n if of is None else len(of.unique()))
    fold = subsets.folds(torch.zeros(n, dtype=torch.int64), count, derive(data.seed, "anomaly"), 0, of)
    result = AnomalyResult({}, {"dim": x.shape[1], "splits": {"all": n}})
    result.protocol["scored"] = f"every sample, by scores fitted to the other {count - 1} of {count} folds" + (
        " (whole groups)" if of is not None else ""
    )
    result.samples = [(part, i) for part in parts for i in data.ids(part).tolist()]
    table: dict[str, list[float]] = {}
    first = next(iter(scorers))
    for name, score in scorers.items():
        if score is None:
            s = torch.cat([method_scores(data, name, part) for part in parts])
        else:
            s = torch.empty(n)
            for f in range(count):
                s[fold == f] = score(x[fold != f], x[fold == f]).float()
        share = anomaly_metrics.outlying(s)
        result.metrics |= {"outlying": share} if name == first else {}
        result.metrics[f"{name}.outlying"] = share
        table[name] = s.tolist()
        result.scores[name] = s
        if name == first:
            ranking = s.argsort(descending=True, stable=True).tolist()
            result.ends = [Extremes("all samples", f"by {name}", extreme_rows(s).tolist(), None)]
    rows = []
    for at, i in enumerate(ranking):
        part, sample = result.samples[i]
        rows.append([at + 1, data.source(part).name_of(sample), *(f"{values[i]:.6g}" for values in table.values())])
    result.csv = Csv(("rank", "sample", *table), rows, f"all {n:,} samples by descending anomaly score ({first})")
    return result


def method_scores(data: EvalData, name: str, split: Any = "test") -> Tensor:
    """Anomaly scores or reconstruction errors (n,) of the pretrained method, in the order of the rows of the features."""
    if name == "objective":
        score = method_outputs.anomaly_scores(data, split)
        assert score is not None
        return score
    result, ids = reconstruct.errors(data, split)
    at = torch.full((len(data.source(split)),), torch.nan)
    at[ids] = result
    return at[data.ids(split)]


def misranked(score: Tensor, anomalous: Tensor) -> Tensor:
    """Which samples (n,) are on the wrong side: of m anomalous ones, those that are not among the m highest scores, and the normal
    ones that are. None at an AUROC of 1, however few are anomalous."""
    ascending = score.argsort(stable=True)
    expected = torch.zeros_like(anomalous)
    expected[ascending[len(score) - int(anomalous.sum()) :]] = True
    return anomalous != expected


def extreme_rows(score: Tensor) -> Tensor:
    """Rows of the SHOWN lowest scores and then of the SHOWN highest, ascending."""
    ascending = score.argsort(stable=True)
    count = min(SHOWN, len(score) // 2)
    return torch.cat([ascending[:count], ascending[len(score) - count :]])
