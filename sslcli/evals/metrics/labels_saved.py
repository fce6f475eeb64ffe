"""Labels saved: how many labels a baseline needs to reach the accuracy, or the error, that another model reaches with n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sslcli.evals.metrics.interval import SUFFIX, Interval, format_interval
from sslcli.runs import Record

Point = tuple[float, float]  # labels, score: an accuracy, or an error with a minus sign


@dataclass(frozen=True)
class Measure:
    """What a label-efficiency curve shows. `quoted`: the number of labels (per class, or in all) at which savings are reported."""

    metric: str  # of a result: top1
    name: str  # in details
    quoted: int
    smaller: bool  # whether a smaller value is better
    per_class: bool  # whether amounts are labels per class
    most: float  # the largest value that is possible; the smallest is 0

    def score(self, value: float) -> float:
        """`value` so that larger is better."""
        return -value if self.smaller else value


TOP1 = Measure("top1", "accuracy", 10, smaller=False, per_class=True, most=1.0)
RMSE = Measure("rmse", "rmse", 100, smaller=True, per_class=False, most=float("inf"))


@dataclass(frozen=True)
class Needed:
    """A number of labels. `relation` says how to read it: "=", ">" (not even with so many), "<=" (with so many, or fewer)."""

    labels: float
    relation: str


def needed(curve: Sequence[Point], accuracy: float) -> Needed:
    """The labels with which a curve first reaches an accuracy, or another score that is better where it is larger.

    Between two measured points the accuracy is taken to be linear in the logarithm of the number of labels. Nothing is
    said beyond the points: a curve that never gets there needs more (">") than its last point has, one that starts
    above it as many as its first at most ("<="). `curve`: (labels, accuracy) with rising labels, one point or more.
    """
    assert curve, "a curve has a point"
    assert all(a[0] < b[0] for a, b in pairwise(curve)), curve
    if curve[0][1] >= accuracy:
        return Needed(curve[0][0], "=" if curve[0][1] == accuracy else "<=")
    for (n, low), (m, high) in pairwise(curve):
        if high >= accuracy:
            share = (accuracy - low) / (high - low)
            return Needed(n * (m / n) ** share, "=")
    return Needed(curve[-1][0], ">")


def least(needs: dict[str, Needed]) -> str:
    """Which baseline needs fewest labels: the best of them. Of equal numbers, one that gets there is better."""
    return min(needs, key=lambda name: (needs[name].labels, needs[name].relation == ">", name))


@dataclass
class Line:
    """One method: by number of labels its mean accuracy or error, the deviation over draws (None with a single draw), and each
    draw."""

    kind: str
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float | None] = field(default_factory=list)
    draws: list[list[float]] = field(default_factory=list)

    def add(self, name: str, labels: int, mean: float, std: float | None, draws: list[float] | None = None) -> None:
        self.names.append(name)
        self.labels.append(labels)
        self.mean.append(mean)
        self.std.append(std)
        self.draws.append(draws or [])

    def as_dict(self) -> dict[str, Any]:
        arrays = {"amounts": self.names, "labels": self.labels, "mean": self.mean, "std": self.std}
        return arrays | ({"draws": self.draws} if any(self.draws) else {})


@dataclass
class Saving:
    """The labels saved by a set of curves. `metrics` has `labels_saved`, unless its interval contains 1; `notes` say why not."""

    table: list[Record]  # for each number of labels
    quoted: Record | None  # the row that is reported, with its interval
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def labels_saved(lines: dict[str, Line], seed: int, measure: Measure = TOP1) -> Saving:
    """What the curves show: the first is that of the self-supervised probe, named ""; all but `finetuned` are baselines."""
    table = savings(lines, measure)
    quoted = quote(table, measure)
    saving = Saving(table, quoted)
    if quoted is None:
        return saving
    interval = saving_interval(lines, seed, measure)
    quoted |= {"interval": interval, "certain": not holds_one(interval)}
    if interval is not None and quoted["certain"]:
        saving.metrics = {
            "labels_saved": quoted["factor"],
            "labels_saved_is_bound": float(quoted["relation"] != "="),
        }
        saving.intervals = {f"labels_saved{SUFFIX}": interval}
        return saving
    why = f"has the interval {format_interval(*interval)}" if interval else "has no interval, as there is one draw"
    saving.notes = [f"labels_saved is left out: {quoted['factor']:.3g} {why}; more draws (evaluator.seeds) narrow it"]
    return saving


def savings(lines: dict[str, Line], measure: Measure = TOP1) -> list[Record]:
    """For each number of labels: what the self-supervised probe reaches, and the labels each baseline needs to reach it."""
    main_line = lines[""]
    baselines = {kind: line for kind, line in lines.items() if kind not in ("", "finetuned", "given")}
    points = {kind: _points(line, measure) for kind, line in baselines.items()}
    rows = []
    for name, labels, reached in zip(main_line.names, main_line.labels, main_line.mean, strict=True):
        result = {kind: needed(curve, measure.score(reached)) for kind, curve in points.items()}
        row: Record = {"amount": name, "labels": labels, measure.name: reached}
        row["needs"] = {
            kind: {"labels": round(n.labels, 1), "factor": n.labels / labels, "relation": n.relation}
            for kind, n in result.items()
        }
        row["best"] = least(result) if result else None
        rows.append(row)
    return rows


def _points(line: Line, measure: Measure) -> list[Point]:
    return [(n, measure.score(mean)) for n, mean in zip(line.labels, line.mean, strict=True)]


def saving_interval(
    lines: dict[str, Line], seed: int, measure: Measure = TOP1, resamples: int = 2000
) -> Interval | None:
    """95 % interval of the labels-saved factor over draws of labels; None with a single draw or without a baseline.

    Parametric bootstrap: the means of each line are sampled from the multivariate t distribution of its draws (lines with
    equally many draws share the random numbers, because their draws are paired), and the factor is recomputed. A factor that
    is a bound leaves its end open.
    """
    import numpy as np

    if any(len(draws) < 2 for line in lines.values() for draws in line.draws) or len(lines) < 2:
        return None
    generator = np.random.default_rng(seed)
    lows, highs = [], []
    for _ in range(resamples):
        shared: dict[int, Any] = {}
        other = {}
        for kind, line in lines.items():
            draws = np.asarray(line.draws).T  # (draws, amounts)
            n = len(draws)
            if n not in shared:
                shared[n] = generator.standard_normal(n) / np.sqrt(n * generator.chisquare(n - 1))
            means = draws.mean(axis=0) + shared[n] @ (draws - draws.mean(axis=0))
            other[kind] = Line(kind, line.names, line.labels, np.clip(means, 0, measure.most).tolist())
        result = quote(savings(other, measure), measure)
        assert result is not None
        lows.append(0.0 if result["relation"] == "<=" else result["factor"])
        highs.append(np.inf if result["relation"] == ">" else result["factor"])
    low, high = np.quantile(lows, 0.025, method="lower"), np.quantile(highs, 0.975, method="higher")
    return float(low), float(high) if np.isfinite(high) else None


def holds_one(interval: Interval | None) -> bool:
    """Whether the interval contains 1, so that no saving is shown; True without an interval."""
    if interval is None:
        return True
    low, high = interval
    return (low is None or low <= 1) and (high is None or high >= 1)


def quote(table: list[Record], measure: Measure = TOP1) -> Record | None:
    """Labels saved at `measure.quoted` labels (else the largest number below, else the first) against the best baseline."""
    rows = [row for row in table if row["best"] is not None]
    if not rows:
        return None
    below = [row for row in rows if row["amount"] != "all" and int(row["amount"]) <= measure.quoted]
    row = below[-1] if below else rows[0]
    best = row["best"]
    needs = row["needs"][best]
    return {
        "at": row["amount"],
        "labels": row["labels"],
        measure.name: row[measure.name],
        "baseline": best,
        "needs": needs["labels"],
        "factor": needs["factor"],
        "relation": needs["relation"],
    }
