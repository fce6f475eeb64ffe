"""Anomaly detection: anomaly scores fitted to features of normal training samples rank the test samples.

With labels, one class is normal and all others are anomalous (`normal: each` takes every class in turn, the usual one-class
protocol). Without labels, all training samples are normal, and the test samples with the highest anomaly scores are shown.
Only the scores are fitted to normal samples: the backbone was pretrained on all data of its run, commonly all classes.
"""

from __future__ import annotations

import torch
from torch import nn

from sslcli.errors import DataError, RequestError, listing, nearest
from sslcli.evals import reconstruct
from sslcli.evals.artefacts.anomaly_sheets import make_artefacts
from sslcli.evals.artefacts.sample_sheets import class_name
from sslcli.evals.base import method_outputs
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.fit import anomaly_scores
from sslcli.evals.fit.anomaly_protocols import (
    PRETRAINED,
    AnomalyResult,
    NormalClass,
    ScoreFunction,
    rank_all_samples,
    rank_test_samples,
    score_each_class,
)
from sslcli.evals.fit.clustering import float64_device
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.steps.scores import step_artefacts, step_metrics
from sslcli.rng import derive

SCORES = ("knn", "knn_l2", "mahalanobis", "ocsvm", "reconstruction", "objective")


def anomaly(
    backbone: nn.Module,
    data: EvalData,
    *,
    scores: list[str] | str = ("knn", "knn_l2", "mahalanobis", "ocsvm"),  # type: ignore[assignment]
    normal: str | int | list[str | int] = "each",
    k: int = 5,
    nu: float = 0.1,
    baselines: Baselines = True,
) -> Result:
    """Returns `auroc` and `fpr95` of the first of `scores`, and of each score as `knn.auroc` and so on, with `raw.` and
    `untrained.`; with several normal classes, the means.

    - auroc: the share of pairs of an anomalous and a normal test sample in which the anomalous one has the higher score.
    - fpr95: the share of anomalous test samples below the threshold that 95 % of the normal ones are below (normal is
      positive, as in ODIN; 0 is best).
    - `knn` uses the cosine, `knn_l2` the Euclidean distance; compare with the better of both on raw inputs.
    - `reconstruction` is the reconstruction error of the run's method, `objective` its own anomaly score where it has one
      (always included): both were fitted in pretraining and do not depend on `normal`.

    `normal: all` reads no label and returns `flagged`: the share of test samples with a conformal p-value of at most 5 %,
    calibrated on a fifth of the training samples. Without anomalies it is about .05. In an unlabeled data set without a test
    split, each sample is scored by a model fitted to the other folds, and `outlying` is the share of samples whose score is
    more than 3 robust standard deviations (1.4826 times the median absolute deviation) above the median. Data without labels
    are evaluated in this way by default. Of windows of recordings, each step also has a score, and where the data say which steps
    are anomalous, `steps.auroc` and `steps.ap`: see `steps/scores.py`. Raises RequestError for settings out of range, DataError for
    missing labels.
    """
    chosen = _check(scores, k, nu)
    if "reconstruction" in chosen and not reconstruct.reconstructs(data):
        raise RequestError(
            "evaluator.scores: reconstruction is for runs of a method that reconstructs",
            "evaluator.scores=[knn,knn_l2,mahalanobis,ocsvm]",
        )
    if method_outputs.has_output(data, "anomaly_score"):
        chosen = list(dict.fromkeys([*chosen, "objective"]))
    elif "objective" in chosen:
        raise RequestError(
            "evaluator.scores: objective is for runs of a method with an anomaly score",
            "sslcli pretrain experiment=joint_anomaly",
        )
    unlabeled = normal == "each" and data.unlabeled
    normal = "all" if unlabeled else normal
    everything = normal == "all" and (data.dataset.test is None or (data.unlabeled and data.dataset.split != ""))
    split: Split = "train" if everything else "test"
    data.source(split)  # raises before any feature is computed
    groups = [] if normal == "all" else _groups(normal, data)
    fitted = _scorers(chosen, k, nu, data)
    measure = rank_all_samples if everything else rank_test_samples if normal == "all" else score_each_class
    metrics: dict[str, float] = {}
    results: dict[str, AnomalyResult] = {}
    for kind, features in data.feature_sets(backbone, baselines).items():
        here = fitted if kind == "" else {name: score for name, score in fitted.items() if name not in PRETRAINED}
        if not here:
            continue
        results[kind] = measure(features("train"), features(data.eval_split), here, groups, data)
        prefix = f"{kind}." if kind else ""
        metrics |= {prefix + name: value for name, value in results[kind].metrics.items()}
        metrics |= {prefix + name: value for name, value in step_metrics(results[kind], data).items()}
    first = results[""]
    notes = list(first.notes)
    if unlabeled:
        notes.append("no sample has a label: all are treated as normal (normal=all)")
    notes += [
        f"{name}: from the pretrained method, not fitted to the normal samples" for name in chosen if name in PRETRAINED
    ]
    protocol = {
        "scores": chosen,
        "normal": str(normal),
        "k": k,
        "nu": nu,
        "positive": "normal (fpr95: the share of anomalous samples below the threshold that 95 % of the normal ones are below)",
        "fitted": "scores to normal training samples; the backbone to all data of its run",
        "ocsvm_samples": f"at most {anomaly_scores.SUPPORT_FROM:,} for each normal class",
        **first.protocol,
        "notes": data.protocol_notes(baselines, notes),
    }
    details = {"names": first.names, **{kind or "backbone": f.each for kind, f in results.items()}} if groups else {}
    artefacts = make_artefacts(results, chosen[0], data) | step_artefacts(first, chosen[0], data)
    return Result(metrics, protocol, artefacts, details)


def _check(scores: list[str] | str, k: int, nu: float) -> list[str]:
    chosen = [scores] if isinstance(scores, str) else list(scores)
    for name in chosen:
        if name not in SCORES:
            near = nearest(str(name), SCORES)
            raise RequestError(
                f"evaluator.scores: unknown score {name}; available: {', '.join(SCORES)}",
                f"evaluator.scores=[{near or 'knn'}]",
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise RequestError("evaluator.scores: name at least one score, each once", "evaluator.scores=[knn]")
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise RequestError(f"evaluator.k={k}: expected an integer of at least 1", "evaluator.k=5")
    if isinstance(nu, bool) or not 0 < nu <= 1:
        raise RequestError(f"evaluator.nu={nu}: expected a share above 0 and at most 1", "evaluator.nu=0.1")
    return chosen


def _scorers(chosen: list[str], k: int, nu: float, data: EvalData) -> dict[str, ScoreFunction | None]:
    """By name, a function (normal, queries) -> scores; None for scores of the pretrained method, which use no features."""
    device, seed = float64_device(data.device), derive(data.seed, "ocsvm")
    known: dict[str, ScoreFunction | None] = {
        "knn": lambda normal, queries: anomaly_scores.knn(normal, queries, k, data.device),
        "knn_l2": lambda normal, queries: anomaly_scores.knn_l2(normal, queries, k, data.device),
        "mahalanobis": lambda normal, queries: anomaly_scores.mahalanobis(normal, queries, device),
        "ocsvm": lambda normal, queries: anomaly_scores.ocsvm(normal, queries, nu, seed, device),
        "reconstruction": None,
        "objective": None,
    }
    return {name: known[name] for name in chosen}


def _groups(normal: str | int | list[str | int], data: EvalData) -> list[NormalClass]:
    """The normal classes, one entry per evaluation. Raises RequestError for an unknown class, DataError without labels."""
    y, y_true = data.labels("train"), data.labels("test")
    for split, labels in (("train", y), ("test", y_true)):
        if not bool((labels >= 0).any()):
            raise DataError(
                f"{data.dataset.name} has no labels in its {split} split to define the normal class",
                "evaluator.normal=all ranks test samples without labels",
            )
    subsets.check(y_true, "test", data.dataset.name)
    names = [class_name(data.dataset.classes, c) for c in range(max(int(y.max()), int(y_true.max())) + 1)]
    if normal == "each":
        counts = y[y >= 0].bincount()
        return [
            NormalClass(names[c] if c < len(names) else str(c), torch.tensor([c]))
            for c in counts.nonzero().flatten().tolist()
        ]
    wanted = [str(n) for n in (normal if isinstance(normal, list) else [normal])]
    for word in wanted:
        if word not in names:
            near = nearest(word, names)
            raise RequestError(
                f"evaluator.normal={word}: unknown class; the classes are {listing(names)}",
                f"evaluator.normal={near}" if near else "evaluator.normal=each, or all",
            )
    if not wanted:
        raise RequestError("evaluator.normal is empty", "evaluator.normal=each, a class, or all")
    return [NormalClass(", ".join(wanted), torch.tensor(sorted({names.index(w) for w in wanted})))]


# ------------------------------------------------------------------------------------------------------------- artefacts
