"""Rank runs by a metric of their evaluations, and test whether the best two are distinguishable. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from sslcli.console import plural
from sslcli.errors import RequestError, listing, nearest
from sslcli.evals.metrics.ranking import goodness
from sslcli.evals.pairing.predictions import same_data
from sslcli.evals.pairing.separation import Separation, separation
from sslcli.runs import Record
from sslcli.runs.listing import evaluate_again, summarize_all
from sslcli.runs.results import find_result


def rank_runs(metric: str) -> tuple[list[Record], list[Record]]:
    """The summaries of all runs that have a metric such as `probe.top1`, best first; and of those that are not ranked, because
    it was measured with other weights than they have now. RequestError where no run can be ranked."""
    summaries = summarize_all()
    rows = [row for row in summaries if isinstance(row["numbers"].get(metric), (int, float))]
    earlier = [row for row in summaries if metric in row["earlier"]["numbers"]]
    if not rows and earlier:
        newest = earlier[-1]
        raise RequestError(
            f"no run has the metric `{metric}` for its current weights; {plural(len(earlier), 'run')} had it before training "
            "went further",
            evaluate_again(newest, metric.rpartition(".")[0]),
        )
    if not rows:
        known = sorted({name for row in summaries for name in row["numbers"]})
        close = nearest(metric, known)
        hint = (
            f"did you mean `{close}`?"
            if close
            else f"available: {listing(known)}"
            if known
            else "sslcli eval probe computes it"
        )
        raise RequestError(f"no run has the metric `{metric}`", hint)
    return sorted(rows, key=lambda row: goodness(metric, row["numbers"][metric]), reverse=True), earlier


def on_other_data(rows: list[Record], name: str) -> list[str]:
    """The paths of ranked runs whose metric was measured on other data than that of the first."""
    results = [find_result(Path(row["run"]), name)[0] for row in rows]
    return [
        row["run"]
        for row, result in zip(rows, results, strict=True)
        if result and results[0] and not same_data(results[0], result)
    ]


def compare_runs(first: Path, second: Path, name: str) -> Separation:
    """Whether two run folders are distinguishable by a metric (`probe@5-class.top1`) that was computed for both."""
    (a, metric), (b, _) = (find_result(path, name) for path in (first, second))
    return separation(a, b, metric)
