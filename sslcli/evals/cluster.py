"""Clustering: agreement of clusters of frozen features with the classes.

Clusters are fitted to the training features (`sslcli.evals.fit.clustering`), without labels. Test samples are then assigned to
these clusters, and the assignment is scored; labels are used for scoring only. Without a test split, the assignment of the
training samples is scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sslcli.console import warn
from sslcli.errors import RequestError, nearest
from sslcli.evals.artefacts.cluster_sheets import (
    cluster_terms,
    exemplar_sheet,
    make_artefacts,
    most_probable,
    term_table,
)
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.method_outputs import cluster_probabilities
from sslcli.evals.base.result import Baselines, Result, check_seeds, mean_and_std
from sslcli.evals.fit import clustering
from sslcli.evals.fit.clustering import Clustering, Settings, Space
from sslcli.evals.metrics.agreement import NOISE, agreement, mean_ari
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runtime.progress import track

SCORES = ("acc", "nmi", "ari")


def cluster(
    backbone: nn.Module,
    data: EvalData,
    *,
    method: str = "kmeans",
    k: int | str = "classes",
    starts: int = 1,
    dims: int = 32,
    min_cluster_size: int | None = None,
    k_max: int = 100,
    seeds: int = 1,
    baselines: Baselines = True,
) -> Result:
    """Returns `acc`, `nmi`, `ari` against the labels, `silhouette`, and with several seeds `stability`; the same with `raw.` and
    `untrained.`; over seeds each with `_std`. hdbscan also has `clusters` and `noise`, the share of samples in none; k=auto has
    `clusters`, the estimated number.

    - acc: accuracy under the best one-to-one matching of clusters and classes
      (the Hungarian method; Yang et al., "Image clustering using local discriminant models",
      IEEE TIP 2010). Samples of unmatched clusters, and noise, count as errors.
    - nmi: mutual information over the mean of both entropies; ari: Hubert & Arabie 1985. Noise is a cluster of its own.
    - silhouette: mean over at most 5,000 samples, drawn by the seed, in the clustered space, so values of
      different spaces are not comparable. Noise counts 0.
    - stability: mean ARI between the assignments of each two seeds. A seed determines the initialization of k-means and gmm,
      and the samples hdbscan is fitted to where there are more than 10,000.

    Where samples have words, those that characterize each cluster are in the details and in `terms.csv`.

    Of a run whose method has a clustering head also `head.acc`, `head.nmi`, `head.ari` and `head.used`, the number of its clusters
    that have a sample.
    """
    settings, count_rule = _check(method, k, starts, dims, min_cluster_size, k_max)
    check_seeds(seeds)
    if isinstance(count_rule, int) and count_rule > (n := len(data.source("train"))):
        raise RequestError(f"evaluator.k={k}: there are {n:,} training samples", f"evaluator.k={min(10, n)}")
    split: Split = "test" if data.dataset.test is not None else "train"
    notes: list[str] = []
    if split == "train":
        notes.append("no test split: the scored samples are the training samples that the clusters were fitted to")
    if seeds == 1:
        notes.append("stability needs several seeds: seeds=5")

    metrics: dict[str, float] = {}
    protocol: Record = {}
    details: Record = {}
    artefacts: dict[str, Any] = {}
    estimated: dict[str, int] = {}
    for kind, features in data.feature_sets(backbone, baselines).items():
        (x, y), (queries, y_true) = features("train"), features(split)
        if count_rule == "classes" and not bool((y >= 0).any()):
            count_rule = "auto"
            warning = "no training sample has a label to count classes by: the number of clusters is estimated (k=auto)"
            notes.append(warning)
            warn(warning, "evaluator.k=10 says how many")
        result = _measure(x, y, queries, y_true, data, settings, count_rule, k_max, seeds)
        prefix = f"{kind}." if kind else ""
        for name, values in result.scores.items():
            metrics |= mean_and_std(prefix + name, values)
        if result.stability is not None:
            metrics[f"{prefix}stability"] = result.stability
        if result.curve:
            metrics[f"{prefix}clusters"] = float(result.draws[0].clusters)
            estimated[kind or "the backbone"] = result.draws[0].clusters
        about = {"dim": x.shape[1], "space": result.space, "clusters": [d.clusters for d in result.draws]}
        notes += [f"{kind}: {note}" if kind else note for d in result.draws for note in d.notes]
        if kind == "":
            protocol = {
                "method": method,
                "k": str(k),
                "k_is": _words_of(count_rule, method),
                "starts": starts,
                "seeds": seeds,
                "std": "standard deviation over seeds (n - 1)",
                "splits": {"train": len(x), split: len(queries), "labelled": int((y_true >= 0).sum())},
                "fitted": "to all training features, without labels",
                "scored": f"the assignment of the {split} split",
                "silhouette_samples": min(len(queries), clustering.SILHOUETTE_ON),
                **about,
                "baselines": {},
            }
            details = {"train": result.train, **({"k_curve": result.curve} if result.curve else {})}
            artefacts = make_artefacts(result.draws[0], result.queries, y_true, data, split)
            if (terms := cluster_terms(result.draws[0], data, split)) is not None:
                protocol["terms"] = terms.note
                details["terms"] = {str(c): dict(words) for c, words in enumerate(terms.of_groups)}
                artefacts = {"terms.csv": term_table(terms, result.draws[0], y_true, data), **artefacts}
        else:
            protocol["baselines"][kind] = about
    if len(set(estimated.values())) > 1:
        numbers = ", ".join(f"{count} for {kind}" for kind, count in estimated.items())
        warning = f"k=auto estimated different numbers of clusters: {numbers}; acc, nmi and ari depend on that number"
        notes.append(warning)
        warn(warning, f"evaluator.k={next(iter(estimated.values()))} compares at one number of clusters")
    head_output = cluster_probabilities(data, split)
    if head_output is not None:
        assigned = head_output.argmax(dim=1)
        if bool((y_true >= 0).any()):
            metrics |= {f"head.{name}": value for name, value in agreement(assigned, y_true).items()}
        metrics["head.used"] = float(assigned.unique().numel())
        chosen = most_probable(head_output)
        title = f"{split} samples with the highest probability in each cluster of the head"
        artefacts["head_exemplars.png"] = exemplar_sheet(
            chosen, assigned, head_output.shape[1], y_true, data, split, title
        )
        protocol["head"] = (
            f"{head_output.shape[1]} clusters of the pretrained head, each sample in its most probable one"
        )
    protocol["notes"] = data.protocol_notes(baselines, notes)
    intervals = accuracy_intervals(metrics, int((y_true >= 0).sum()), seeds)
    return Result(metrics, protocol, artefacts, details, intervals)


def _check(
    method: str, k: int | str, starts: int, dims: int, min_cluster_size: int | None, k_max: int
) -> tuple[Settings, int | str]:
    if method not in clustering.METHODS:
        near = nearest(str(method), clustering.METHODS)
        raise RequestError(
            f"evaluator.method={method}: there is {', '.join(clustering.METHODS)}",
            f"evaluator.method={near or 'kmeans'}",
        )
    count_rule = int(k) if str(k).isdecimal() else k
    if count_rule not in ("classes", "auto") and (
        not isinstance(count_rule, int) or isinstance(k, bool) or count_rule < 1
    ):
        raise RequestError(f"evaluator.k={k}: expected classes, auto or an integer of at least 1", "evaluator.k=10")
    if method == "hdbscan" and isinstance(count_rule, int):
        raise RequestError(
            f"evaluator.k={k} has no effect: hdbscan determines the number of clusters",
            "evaluator.min_cluster_size=50 says how small a cluster may be",
        )
    smallest = {"starts": (starts, 1), "dims": (dims, 1), "k_max": (k_max, 2)}
    if min_cluster_size is not None:
        smallest["min_cluster_size"] = (min_cluster_size, 2)
    for name, (value, least) in smallest.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RequestError(f"evaluator.{name}={value}: expected an integer of at least {least}")
    return Settings(method, starts, dims, min_cluster_size), count_rule


def _words_of(count_rule: int | str, method: str) -> str:
    if method == "hdbscan":
        return "found by hdbscan"
    words = {
        "classes": "the number of classes among training labels",
        "auto": f"that of largest silhouette of k-means, on at most {clustering.SILHOUETTE_ON:,} training samples",
    }
    return words.get(str(count_rule), "given")


@dataclass
class _ClusterScores:
    draws: list[Clustering]  # one a seed
    scores: dict[str, list[float]]
    stability: float | None
    train: dict[str, float]  # scores of the training samples, first seed
    space: str
    queries: Tensor  # what is scored, in the space that was divided
    curve: dict[str, list[float]] = field(default_factory=dict)


def _measure(
    x: Tensor,
    y: Tensor,
    queries: Tensor,
    y_true: Tensor,
    data: EvalData,
    settings: Settings,
    count_rule: int | str,
    k_max: int,
    seeds: int,
) -> _ClusterScores:
    """Every seed on one kind of features."""
    seed = derive(data.seed, "cluster")
    space = Space(x, settings, seed)
    x, queries = space(x), space(queries)
    curve: dict[str, list[float]] = {}
    count = 0
    if settings.method != "hdbscan":
        count = (
            int(y[y >= 0].unique().numel())
            if count_rule == "classes"
            else int(count_rule)
            if count_rule != "auto"
            else 0
        )
        if not count:
            count, curve = clustering.estimate(x, space.spherical, k_max, seed)
    drawn_once = settings.method == "hdbscan" and len(x) <= clustering.HDBSCAN_ON
    rounds = 1 if drawn_once else seeds
    draws = [clustering.fit_clusters(x, queries, count, settings, derive(seed, i), data.device) for i in range(rounds)]
    if rounds < seeds:
        draws[0].notes.append(
            f"hdbscan: seeds={seeds} has no effect, all training samples are used and nothing is drawn"
        )

    scores: dict[str, list[float]] = {}
    labeled = bool((y_true >= 0).any())
    subset = clustering.subsample_rows(len(queries), clustering.SILHOUETTE_ON, derive(seed, "silhouette"))
    table = clustering.distances(queries[subset], space.spherical)
    for fitted in track(draws, "clustering"):
        result = agreement(fitted.queries, y_true) if labeled else {}
        result["silhouette"] = clustering.silhouette(table, fitted.queries[subset])
        if settings.method == "hdbscan":
            result["clusters"] = float(fitted.clusters)
            result["noise"] = float((fitted.queries == NOISE).double().mean())
        for name, value in result.items():
            scores.setdefault(name, []).append(value)
    stability = mean_ari([d.queries for d in draws]) if rounds > 1 else None
    train = agreement(draws[0].train, y) if bool((y >= 0).any()) else {}
    if curve and count == int(max(curve["k"])) and count > 1:
        warning = f"k = {count}, the largest that was tried, has the highest silhouette: evaluator.k_max={2 * count} tries more"
        draws[0].notes.append(warning)
        warn(warning)
    return _ClusterScores(draws, scores, stability, train, space.words, queries, curve)


# ------------------------------------------------------------------------------------------------------------- artefacts
