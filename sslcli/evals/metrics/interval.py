"""95 % confidence intervals of metrics, and rounding of metrics to significant digits. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

Interval = tuple[float | None, float | None]  # None: open at this end
LEVEL = 0.95
Z = 1.959964  # 97.5 % quantile of the standard normal distribution
SUFFIX = "_ci95"  # appended to a metric's name in the `intervals` of a result
ACCURACIES = ("top1", "top5", "acc")  # shares of test samples


def share_interval(p: float, n: float, std: float | None = None, draws: int = 1) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion `p` of `n` test samples.

    With several draws of labels, `p` is their mean and `std` their standard deviation, and the interval covers other draws as
    well: the variance of the mean over draws, scaled by the ratio of Student's t and normal quantiles, is added to the binomial
    variance, and `n` is replaced by the sample size of equal variance.
    """
    assert 0 <= p <= 1 <= n, (p, n)
    variance = p * (1 - p)
    if std and draws > 1 and variance > 0:
        n = variance / (variance / n + (students_quantile(draws - 1) / Z) ** 2 * std**2 / draws)
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(variance / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def students_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t distribution with `freedom` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def accuracy_intervals(metrics: Mapping[str, float], n: int, draws: int = 1) -> dict[str, Interval]:
    """Intervals (`top1_ci95`, ...) of all accuracies (`top1`, `raw.top5`, `top1@10`) in `metrics`, from `n` test samples."""
    intervals: dict[str, Interval] = {}
    for name, value in metrics.items():
        if name.endswith("_std"):
            continue
        if name.rpartition(".")[2].partition("@")[0] in ACCURACIES and n > 0 and 0 <= value <= 1:
            intervals[name + SUFFIX] = share_interval(value, n, metrics.get(f"{name}_std"), draws)
    return intervals


def format_value(value: float, interval: Interval | None = None) -> str:
    """Format a metric to one decimal beyond the leading digit of its interval's half width, with at most 4 decimals.

    Without an interval, four significant digits.
    """
    low, high = interval or (None, None)
    if low is None or high is None or not math.isfinite(value):
        return f"{value:.4g}"
    half = (high - low) / 2
    return f"{value:.{min(4, max(2, 1 - math.floor(math.log10(half))))}f}" if half > 0 else f"{value:.4g}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format an interval, such as `0.91 .. 0.95`; an end may be open."""
    half = (high - low) / 2 if low is not None and high is not None else 0.0
    ends = [format_value(end, (end - half, end + half)) if end is not None else "?" for end in (low, high)]
    return f"{ends[0]} .. {ends[1]}" if high is not None else f"{ends[0]} or more"


def format_metrics(metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> dict[str, str]:
    """Format each metric of a result by its interval; standard deviations (`_std`) with two significant digits."""
    return {
        name: f"{value:.2g}"
        if name.endswith("_std") and name.removesuffix("_std") in metrics
        else format_value(value, intervals.get(name + SUFFIX))
        for name, value in metrics.items()
    }
