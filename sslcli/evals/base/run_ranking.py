"""Rank runs by a metric of their evaluations, and test whether the best two are distinguishable. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from sslcli.errors import RequestError, listing, nearest
from sslcli.evals.metrics.paired import Separation, separation
from sslcli.evals.metrics.ranking import goodness
from sslcli.runs import Record
from sslcli.runs.listing import summarize_all
from sslcli.runs.results import find_result


def rank_runs(metric: str) -> list[Record]:
    """The summaries of all runs that have a metric such as `probe.top1`, best first. RequestError where no run has it."""
    summaries = summarize_all()
    rows = [row for row in summaries if isinstance(row["numbers"].get(metric), (int, float))]
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
    return sorted(rows, key=lambda row: goodness(metric, row["numbers"][metric]), reverse=True)


def compare_runs(first: Path, second: Path, name: str) -> Separation:
    """Whether two run folders are distinguishable by a metric (`probe@5-class.top1`) that was computed for both."""
    (a, metric), (b, _) = (find_result(path, name) for path in (first, second))
    return separation(a, b, metric)
