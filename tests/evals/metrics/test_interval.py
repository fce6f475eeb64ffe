"""Intervals against scipy and by simulation; digits by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from sslcli.evals.artefacts.predictions import FILE, TABLE, Predictions, read
from sslcli.evals.knn import knn
from sslcli.evals.metrics.interval import (
    accuracy_intervals,
    format_interval,
    format_metrics,
    format_value,
    share_interval,
)
from sslcli.evals.probe import probe
from tests.evals import toys


@pytest.mark.parametrize(("right", "n"), [(0, 20), (37, 50), (50, 50), (9123, 10_000)])
def test_share_interval_matches_wilson(right, n):
    from scipy.stats import binomtest

    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert share_interval(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_share_interval_over_draws_has_nominal_coverage():
    """Five draws whose accuracies scatter by .03 about .8, each on the same 200 samples: 95 % of the intervals hold .8."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1_000):
        luck = rng.normal(0, (0.8 * 0.2 / 200) ** 0.5)  # of the test samples, which the draws share
        draws = 0.8 + luck + rng.normal(0, 0.03, size=5)
        low, high = share_interval(draws.mean(), 200, draws.std(ddof=1), 5)
        held += low <= 0.8 <= high
    assert 0.93 < held / 1_000 < 0.99
    assert share_interval(0.8, 200, 0.03, 5)[0] < share_interval(0.8, 200)[0]
    assert share_interval(0.8, 200, 0.03, 2)[0] < share_interval(0.8, 200, 0.03, 5)[0]


def test_accuracy_intervals_are_of_accuracies_only():
    metrics = {"top1": 0.9, "top1_std": 0.01, "raw.top5": 1.0, "top1@10": 0.5, "rankme": 30.0, "drop": 0.1}
    assert set(accuracy_intervals(metrics, 100, 5)) == {"top1_ci95", "raw.top5_ci95", "top1@10_ci95"}
    assert accuracy_intervals(metrics, 0) == {}


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0.973333333, (0.95, 0.986), "0.973"),
        (0.9, (0.78, 0.96), "0.900"),
        (0.9, (0.7, 0.98), "0.90"),
        (0.91234567, (0.9066, 0.9178), "0.9123"),
        (0.912345678, (0.91234, 0.91235), "0.9123"),  # four decimals at most
        (45.59856, None, "45.6"),
        (0.123456, (0.1, None), "0.1235"),
        (3.36, (1.1, 9.0), "3.36"),
    ],
)
def test_format_value_rounds_by_the_interval(value, interval, expected):
    assert format_value(value, interval) == expected


def test_format_metrics_of_a_result():
    metrics = {"top1": 0.97333333, "top1_std": 0.01298765, "rankme": 45.598563}
    assert format_metrics(metrics, {"top1_ci95": (0.95, 0.99)}) == {
        "top1": "0.973",
        "top1_std": "0.013",
        "rankme": "45.6",
    }
    assert format_interval(0.951, 0.989) == "0.951 .. 0.989"
    assert format_interval(2.5, None) == "2.5 or more"


def test_predictions_are_saved_by_name(tmp_path, data):
    for evaluator in (probe, knn):
        result = evaluator(toys.Rows(), data, labels="10/class", seeds=2, baselines=False)
        said = result.artefacts[FILE]
        assert isinstance(said, Predictions)
        said.save(tmp_path / FILE)
        result.artefacts[TABLE].save(tmp_path / TABLE)
        assert torch.equal(read(tmp_path, FILE).probability, said.probability)
        rows = list(csv.DictReader((tmp_path / TABLE).read_text().splitlines()))
        assert len(rows) == 2 * 120
        assert [r["draw"] for r in rows[:1] + rows[-1:]] == ["1", "2"]
        right = [r["class"] == r["predicted"] for r in rows]
        assert sum(right) / len(right) == pytest.approx(result.metrics["top1"])
        assert rows[0]["class"].startswith("row ")
        assert all(1 / 3 <= float(r["probability"]) <= 1 for r in rows)
        assert rows[0]["sample"] == data.source("test").name_of(int(rows[0]["id"]))
