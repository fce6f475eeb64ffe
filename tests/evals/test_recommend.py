"""Ranks, metrics and baselines against slow references, and runs on generated users."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.data.histories.next_items import FIRST
from sslcli.data.histories.sessions import sessions
from sslcli.evals.recommendation.item_map import apart
from sslcli.evals.recommendation.models import ItemKNN, Markov, Popularity
from sslcli.evals.recommendation.ranks import metrics, target_ranks, without_seen


def test_ranks_against_sorting():
    """The mean rank over all orders of equal scores."""
    draw = np.random.default_rng(0)
    scores = torch.from_numpy(draw.integers(0, 6, (50, 17)).astype(np.float32))
    target = torch.from_numpy(draw.integers(0, 17, 50))
    found = target_ranks(scores, target)
    for row, t, rank in zip(scores.tolist(), target.tolist(), found.tolist(), strict=True):
        places = [i for i, s in enumerate(sorted(row, reverse=True), 1) if s == row[t]]
        assert rank == sum(places) / len(places)


def test_metrics_against_formulas():
    ranks = torch.tensor([1.0, 2.5, 10.0, 10.5, 20.0, 300.0], dtype=torch.float64)
    values, intervals = metrics(ranks, [10, 20], "keep")
    for k in (10, 20):
        inside = [r for r in ranks.tolist() if r <= k]
        assert values[f"hr@{k}"] == pytest.approx(len(inside) / 6)
        assert values[f"ndcg@{k}"] == pytest.approx(sum(1 / math.log2(1 + r) for r in inside) / 6)
        assert values[f"mrr@{k}"] == pytest.approx(sum(1 / r for r in inside) / 6)
        for name, value in values.items():
            low, high = intervals[f"{name}_ci95"]
            assert low <= value <= high
    assert set(metrics(ranks, [5], "mask")[0]) == {"hr_masked@5", "ndcg_masked@5", "mrr_masked@5"}


def test_seen_targets_are_missed():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0]])
    left = without_seen(scores, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert target_ranks(left, torch.tensor([2])).tolist() == [1.0]
    assert target_ranks(left, torch.tensor([0])).tolist() == [math.inf]
    assert set(metrics(target_ranks(left, torch.tensor([0])), [10], "mask")[0].values()) == {0.0}
    assert scores[0, 0] == 5


@pytest.mark.parametrize("most", [0, 100])
def test_baselines_against_slow_references(monkeypatch, most):
    whole = sessions(users=40, items=12, holdout=0).next_items
    assert whole is not None
    train = whole.training()
    histories = [[i - FIRST for i in train[u].tolist()] for u in range(len(train))]
    users, places = whole.targets("test")
    before = [
        [i - FIRST for i in whole.events[u][:p].tolist()] for u, p in zip(users.tolist(), places.tolist(), strict=True)
    ]
    counts = [sum(h.count(i) for h in histories) for i in range(12)]
    follows = [
        [sum((a, b) == pair for h in histories for pair in itertools.pairwise(h)) for b in range(12)] for a in range(12)
    ]
    has = [{u for u, h in enumerate(histories) if i in h} for i in range(12)]

    def cosine(i: int, j: int) -> float:
        return 0.0 if i == j else len(has[i] & has[j]) / math.sqrt(len(has[i]) * len(has[j]))

    monkeypatch.setattr(ItemKNN, "AT_ONCE", 5)
    monkeypatch.setattr(ItemKNN, "MOST", most)
    popular, markov, knn = (kind(train, whole).scores(users, places) for kind in (Popularity, Markov, ItemKNN))
    for row, h in enumerate(before):
        assert popular[row].tolist() == counts
        assert markov[row].tolist() == pytest.approx(
            [follows[h[-1]][j] + counts[j] / (sum(counts) + 1) for j in range(12)]
        )
        assert knn[row].tolist() == pytest.approx([sum(cosine(i, j) for i in set(h[-10:])) for j in range(12)])


def test_names_on_the_map_do_not_overlap():
    points = np.random.default_rng(0).uniform(size=(300, 2))
    chosen = points[apart(points)]
    assert len(chosen) > 40
    for i, a in enumerate(chosen):
        for b in chosen[:i]:
            assert abs(a[0] - b[0]) >= 0.19 or abs(a[1] - b[1]) >= 0.021
    assert apart(np.zeros((4, 2))) == [0]


SMALL = ["device=cpu", "device.threads=1", "device.workers=0", "dataset.users=240", "dataset.items=30"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run of sasrec on generated users."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("recommend")
    with contextlib.chdir(folder):
        assert main(["pretrain", "method=sasrec", *SMALL, "train.epochs=30", "train.batch_size=32"]) == 0
    return folder


def test_sasrec_is_better_than_popularity(made, cli, tmp_path):
    (tmp_path / "runs").symlink_to(made / "runs")
    result = cli("eval", "recommend", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    numbers = record["numbers"]
    assert len(numbers) == 5 * 2 * 6
    for name in ("", "popularity.", "markov.", "item_knn.", "untrained."):
        assert {f"{name}{m}{s}@{k}" for m in ("hr", "ndcg", "mrr") for s in ("", "_masked") for k in (10, 20)} <= set(
            numbers
        )
    for metric in ("ndcg@10", "ndcg_masked@10"):
        assert numbers[metric] > 1.2 * max(numbers[f"{name}.{metric}"] for name in ("popularity", "untrained"))
    assert record["protocol"]["users"] == 240
    assert "seen=keep" in str(record["protocol"]["seen"])
    assert any("48 users of 240 whose events training did not read" in note for note in record["protocol"]["notes"])
    with (made / "runs" / "latest" / "eval" / "recommend_ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["seen"]) for r in rows[:2]] == [("this run", "keep"), ("this run", "mask")]
    assert float(rows[0]["hr@10"]) == pytest.approx(numbers["hr@10"], abs=1e-4)
    assert float(rows[1]["ndcg@20"]) == pytest.approx(numbers["ndcg_masked@20"], abs=1e-4)
    with (made / "runs" / "latest" / "eval" / "recommend_ranks.csv").open(newline="") as file:
        users = list(csv.DictReader(file))
    assert len({row["user"] for row in users}) == 240
    for column, metric in (
        ("rank", "hr@10"),
        ("rank_masked", "hr_masked@10"),
        ("markov.rank_masked", "markov.hr_masked@10"),
    ):
        assert sum(float(row[column] or "inf") <= 10 for row in users) / 240 == pytest.approx(numbers[metric])
    with (made / "runs" / "latest" / "eval" / "recommend_differences.csv").open(newline="") as file:
        tests = {(row["metric"], row["baseline"]): row for row in csv.DictReader(file)}
    assert len(tests) == 4 * 4
    row = tests["ndcg@10", "popularity"]
    assert float(row["difference"]) == pytest.approx(numbers["ndcg@10"] - numbers["popularity.ndcg@10"], abs=2e-4)
    assert (row["test"], float(row["p"]) < 0.01, float(row["low"]) > 0) == ("permutation", True, True)
    best = max(("popularity", "markov", "item_knn", "untrained"), key=lambda name: numbers[f"{name}.ndcg@10"])
    where = "above" if numbers["ndcg@10"] > numbers[f"{best}.ndcg@10"] else "below"
    assert f"ndcg@10 of this run, {numbers['ndcg@10']:.4f}, is {where} that of the best baseline, {best}," in result.err
    assert sum("the best baseline" in note for note in record["protocol"]["notes"]) == 2


def test_runs_are_compared_over_users(made, cli, tmp_path):
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    first = next(path for path in (tmp_path / "runs").iterdir() if path.name != "latest")
    second = cli("pretrain", "method=sasrec", *SMALL, "train.steps=1", "train.batch_size=32").last
    for run, words in ((first, []), (second, ["evaluator.max_users=150", "evaluator.cutoffs=[5]"])):
        assert cli("eval", "recommend", f"run={run}", *words).code == 0
    found = json.loads(cli("runs", "compare", str(first), second, "cka=false", "--json").out)
    rows = {(row["metric"], row["run"]): row for row in found["items"]}
    models = ("B", "popularity", "markov", "item_knn", "untrained")
    assert set(rows) == {(f"{m}{s}@10", model) for m in ("hr", "ndcg") for s in ("", "_masked") for model in models}
    ndcg, hits = rows["ndcg@10", "B"], rows["hr@10", "B"]
    assert (ndcg["test"], hits["test"], ndcg["items"]) == ("permutation", "McNemar", 150)
    assert ndcg["low"] <= ndcg["difference"] <= ndcg["high"] < 0
    assert 0 < ndcg["p"] <= ndcg["p_holm"] < 0.05
    assert any("150 users that both predicted, of 240 and 150" in note for note in ndcg["notes"])
    own = rows["ndcg@10", "popularity"]
    assert own["items"] == 240
    assert own["first"] == pytest.approx(found["numbers"]["recommend.ndcg@10"][0])
    assert own["second"] == pytest.approx(found["numbers"]["recommend.popularity.ndcg@10"][0])
    result = cli("runs", "compare", str(first), second, "cka=false")
    assert "recommend.ndcg_masked@10 B" in result.out
    assert "Holm p" in result.out
    assert cli("eval", "recommend", f"run={second}").code == 0
    assert "decided by permutation p" in cli("runs", "best", "recommend.ndcg@10").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluator.seen=some"], "keep, mask or both"),
        (["evaluator.cutoffs=[0]"], "integers of at least 1"),
        (["evaluator.part=train"], "val or test"),
        (["dataset=digits"], "histories of its own items"),
    ],
)
def test_bad_requests_are_refused(made, cli, tmp_path, words, message):
    (tmp_path / "runs").symlink_to(made / "runs")
    result = cli("eval", "recommend", *words)
    assert result.code == 2, result.err
    assert message in result.err


def test_other_methods_recommend_by_similar_users(cli, tmp_path):
    words = ["train.epochs=2", "train.batch_size=32", *SMALL]
    assert cli("pretrain", "method=vicreg", "dataset=sessions", *words).code == 0
    result = cli(
        "eval",
        "recommend",
        "--json",
        "evaluator.cutoffs=[5]",
        "evaluator.seen=mask",
        "evaluator.part=val",
        "evaluator.max_users=50",
    )
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["protocol"]["users"] == 50
    assert "similar features" in record["protocol"]["scores"]
    assert 0 < record["numbers"]["hr_masked@5"] < 1
    assert "hr@5" not in record["numbers"]
