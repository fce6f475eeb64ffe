"""Titles of evaluations, names of metrics, and their values as text."""

from __future__ import annotations

from sslcli.evals.base.info import evaluator_info, evaluator_infos
from sslcli.evals.metrics import interval
from sslcli.evals.metrics.ranking import METRICS
from sslcli.report.run_contents import Evaluation

BASELINE_NAMES = {
    "": "this run",
    "given": "given weights",
    "supervised": "supervised",
    "scratch": "from scratch",
    "untrained": "untrained",
    "raw": "raw inputs",
    "tfidf": "TF-IDF",
    "unigram": "unigram model",
    "linear": "linear model",
    "boosting": "gradient boosting",
    "dtw": "1-NN DTW",
    "minirocket": "MiniROCKET",
    "random": "random map",
    "majority": "most frequent class",
    "mean": "training mean",
    "visible": "visible mean",
    "interpolated": "interpolation",
    "black": "black frames",
    "average": "average frame",
}
METRIC_NAMES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "balanced_top1": "balanced accuracy",
    "auroc": "AUROC",
    "acc": "clustering accuracy",
    "nmi": "NMI",
    "ari": "ARI",
    "map": "mAP",
    "fpr95": "FPR at 95 % recall",
    "rankme": "RankMe",
    "alpha_req": "α-ReQ",
    "lidar": "LiDAR",
    "clid": "CLID",
    "intrinsic_dim": "intrinsic dimension",
    "map_at_r": "mAP at R",
    "ece": "calibration error",
    "ece_uncalibrated": "calibration error before scaling",
    "brier": "Brier score",
    "nll": "log loss",
    "labels_saved": "labels that the best baseline needs",
    "mse": "mean squared error",
    "whole": "the whole sample",
    "psnr": "PSNR, dB",
    "perplexity": "perplexity over masked tokens",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
}


def sort_evaluations(evals: list[Evaluation]) -> list[Evaluation]:
    """Those of the current weights first."""
    return sorted(evals, key=lambda e: (e.outdated, evaluator_info(e.kind).order, e.name))


def title(e: Evaluation) -> str:
    """The title of an evaluation, with the data set and the number of labels where they are not the default, and with the step
    where the run has other weights now."""
    on = f", on {e.dataset}" if e.dataset else ""
    few = f", {format_labels(e.labels)}" if e.labels != "all" else ""
    earlier = f" ({e.step}, other weights)" if e.outdated else ""
    return evaluator_info(e.kind).title + on + few + earlier


def main_metric(e: Evaluation) -> str | None:
    return next((m for m in evaluator_info(e.kind).metrics if "" in e.numbers.get(m, {})), None)


def has_scale(metric: str) -> bool:
    """Whether a metric can be read on its own; label-free metrics only compare runs."""
    return metric not in METRICS


def metric_name(metric: str) -> str:
    """`AUROC of mahalanobis` for `mahalanobis.auroc`, `top-1 accuracy of the linear probe` for `probe.top1`."""
    of, _, name = metric.rpartition(".")
    name, _, at = name.partition("@")
    text = METRIC_NAMES.get(name, name.replace("_", " ")) + (f" at {at}" if at else "")
    if known := evaluator_infos().get(of):
        return f"{text} of the {known.title[:1].lower()}{known.title[1:]}"
    return f"{text} of {METRIC_NAMES.get(of, of.replace('_', ' '))}" if of else text


def format_value(mean: float, std: float | None = None, digits: int = 3) -> str:
    """`0.958 ± 0.013`; values above 1 with four significant digits."""
    if abs(mean) <= 1:
        text = f"{mean:.{digits}f}"
        return text if std is None else f"{text} ± {std:.{digits}f}"
    text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
    return text if std is None else f"{text} ± {std:.2g}"


def format_metric(e: Evaluation, metric: str, kind: str = "", digits: int = 3) -> str:
    """A metric with as many digits as its interval justifies, and its standard deviation over draws."""
    mean, std = e.numbers[metric][kind]
    span = e.interval(metric, kind)
    if span is None or None in span:
        return format_value(mean, std, digits)
    text = interval.format_value(mean, span)
    return text if std is None else f"{text} ± {std:.{len(text.partition('.')[2])}f}"


def label_budget(e: Evaluation) -> str:
    """`all labels`, `10 labels a class, 5 draws`, `all labels, balanced class weights`."""
    labels, seeds = e.protocol.get("labels"), e.protocol.get("seeds")
    if labels is None:
        return ""
    text = format_labels(str(labels))
    text = f"{text}, {seeds} draws" if isinstance(seeds, int) and seeds > 1 else text
    weights = e.protocol.get("class_weight")
    return f"{text}, {weights} class weights" if isinstance(weights, str) else text


def format_labels(labels: str) -> str:
    """`5 labels a class` for `5/class`."""
    if labels == "all":
        return "all labels"
    n, slash, _ = labels.partition("/class")
    if slash:
        return f"{n} label{'' if n == '1' else 's'} a class"
    return (
        f"{labels} labels"
        if labels.isdigit()
        else f"{labels} of the labels"
        if "%" in labels
        else f"labels of {labels}"
    )
