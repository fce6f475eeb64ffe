"""Directions, ranks and their agreement."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from sslcli.evals.metrics import ranking
from sslcli.evals.metrics.ranking import agreement, clid, goodness, rank_all, ranks


@pytest.mark.parametrize(
    "name, better, worse",
    [
        ("rankme", 20, 10),
        ("alpha_req", 1.1, 0.8),
        ("alpha_req", 0.9, 1.3),
        ("quality.alpha_req", 1.0, math.inf),
        ("alignment", 0.1, 0.2),
        ("uniformity", -3.0, -1.0),
        ("quality.untrained.uniformity", -3.0, -1.0),
        ("probe.top1", 0.9, 0.8),
        ("labels.top1@10", 0.9, 0.8),
        ("labels.rmse@100", 1.0, 2.0),
        ("knn.raw.mae", 1.0, 2.0),
        ("probe.r2", 0.3, -0.1),
        ("train/loss", 1.0, 2.0),
        ("reconstruct.mse", 1.0, 2.0),
        ("anomaly.fpr95", 0.1, 0.2),
        ("anomaly.auroc", 0.9, 0.8),
        ("lidar", 1.0, math.nan),
    ],
)
def test_ranking_directions_of_metrics(name, better, worse):
    assert goodness(name, better) > goodness(name, worse)


def test_ranks_of_known_cases():
    assert ranks([10, 30, 20]) == [3, 1, 2]
    assert ranks([1, 1, 0]) == [1.5, 1.5, 3]
    assert ranks([-math.inf, 2, -math.inf]) == [2.5, 1, 2.5]


def test_ranks_match_scipy():
    from scipy.stats import rankdata

    values = [3.0, 1.0, 3.0, 2.0, 5.0, 3.0]
    assert ranks(values) == rankdata([-v for v in values]).tolist()


def test_ranks_use_metrics_common_to_all():
    rows = [{"rankme": 3, "alignment": 0.0, "spread": 1.0}, {"rankme": 5, "alignment": math.nan, "lidar": 3.0}]
    assert rank_all(rows) == [{"rankme": 2, "alignment": 1}, {"rankme": 1, "alignment": 2}]


def test_clid_standardizes_over_the_candidates():
    rows = [{"learnability": 0.5, "intrinsic_dim": 10.0}, {"learnability": 0.7, "intrinsic_dim": 30.0}]
    assert clid(rows) == pytest.approx([-2, 2])
    assert clid([*rows, {"learnability": 0.5}])[2] != clid([*rows, {"learnability": 0.5}])[2]  # nan
    assert clid([{"learnability": 0.5, "intrinsic_dim": 3.0}] * 2) == [0, 0]


def test_rank_agreement_matches_scipy():
    from scipy.stats import kendalltau, spearmanr

    scores, truth = [3.0, 1.0, 2.0, 2.0, 9.0], [0.7, 0.1, 0.3, 0.2, 0.6]
    found = agreement(scores, truth)
    assert found["spearman"] == pytest.approx(spearmanr(scores, truth).statistic)
    assert found["kendall"] == pytest.approx(kendalltau(scores, truth).statistic)
    assert found["n"] == 5
    assert agreement([1, 2, 3], [0.1, 0.2, 0.3]) == {"spearman": pytest.approx(1), "kendall": pytest.approx(1), "n": 3}
    assert agreement([-math.inf, 2, 3], [0.1, 0.2, 0.3])["spearman"] == pytest.approx(1)
    assert math.isnan(agreement([1, 1, 1], [0.1, 0.2, 0.3])["spearman"])
    assert math.isnan(agreement([1], [0.1])["spearman"])


def test_ranking_help_names_every_metric():
    from sslcli.cli.command_table import COMMANDS
    from sslcli.cli.help import command_help

    text = " ".join(command_help(COMMANDS["select"], []).split())
    assert f"by=METRIC {', '.join(ranking.METRICS)} (default: {ranking.DEFAULT}," in text


def test_ranking_imports_no_torch():
    code = "import sys; import sslcli.evals.metrics.ranking, sslcli.evals.pairing.separation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
