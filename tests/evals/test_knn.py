"""The k-NN classifier against scikit-learn's and its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit import neighbors as module
from sslcli.evals.fit.neighbors import classify, nearest_neighbors
from sslcli.evals.knn import knn
from sslcli.evals.probe import probe
from tests.evals import toys


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def slow(bank, y, queries, k, temperature):
    """The weighted k-NN classifier of Wu et al., as in lightly's knn_predict, one query at a time."""
    answers = []
    for q in queries:
        similar = sorted(((float(q @ b), int(c)) for b, c in zip(bank, y, strict=True)), reverse=True)[:k]
        weights: dict[int, float] = {}
        for s, c in similar:
            weights[c] = weights.get(c, 0.0) + math.exp(s / temperature)
        answers.append(max(weights, key=weights.__getitem__))
    return torch.tensor(answers)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (200, 0.1), (20, 1.0)])
def test_knn_matches_the_formula_and_scikit_learn(k, temperature):
    from sklearn.neighbors import KNeighborsClassifier

    bank, queries = unit(300, 6, 0), unit(40, 6, 1)
    y = torch.randint(0, 5, (300,), generator=torch.manual_seed(2))
    found = classify(bank, y, queries, k, temperature)
    assert torch.equal(found, slow(bank.double(), y, queries.double(), k, temperature))
    sk = KNeighborsClassifier(k, metric="cosine", weights=lambda d: torch.tensor((1 - d) / temperature).exp().numpy())
    assert found.tolist() == sk.fit(bank.numpy(), y.numpy()).predict(queries.numpy()).tolist()


@pytest.mark.parametrize(("n", "k"), [(4096, 20), (5003, 7), (9001, 200), (30_000, 20), (4100, 1), (300, 300)])
def test_neighbors_are_exact(n, k):
    bank, queries = unit(n, 8, 0), unit(30, 8, 1)
    values, places = nearest_neighbors(bank, queries, k)
    expected = (queries @ bank.T).topk(k, dim=1)
    torch.testing.assert_close(values, expected.values)
    torch.testing.assert_close((queries[:, None] * bank[places]).sum(dim=2), values)
    assert all(len(set(row)) == k for row in places.tolist())


def test_neighbors_are_equal_in_blocks(monkeypatch):
    bank, queries = unit(5000, 8, 0), unit(50, 8, 1)
    whole = nearest_neighbors(bank, queries, 20)
    monkeypatch.setattr(module, "BANK", 601)  # the last piece is smaller, and smaller than k for the next
    monkeypatch.setattr(module, "QUERIES", 7)
    pieces = nearest_neighbors(bank, queries, 20)
    torch.testing.assert_close(pieces[0], whole[0])
    assert torch.equal(pieces[1], whole[1])
    monkeypatch.setattr(module, "BANK", 13)
    torch.testing.assert_close(nearest_neighbors(bank, queries, 20)[0], whole[0])


def test_neighbors_with_ties():
    bank = F.normalize(torch.ones(5000, 3), dim=1)  # collapsed features: all alike
    values, places = nearest_neighbors(bank, bank[:4], 20)
    torch.testing.assert_close(values, torch.ones(4, 20))
    assert all(len(set(row)) == 20 for row in places.tolist())


def test_knn_small_temperature_does_not_overflow():
    bank, y = unit(50, 4, 0), torch.arange(50) % 3
    assert torch.equal(classify(bank, y, bank, 5, 1e-4), y)  # the nearest is the sample itself


def test_knn_metrics_and_protocol(data):
    result = knn(toys.Rows(), data)
    assert set(result.metrics) == {"top1", "raw.top1", "untrained.top1"}
    assert result.metrics["top1"] > 0.9 > result.metrics["untrained.top1"]
    assert result.protocol["splits"] == {"train": 240, "labelled": 240, "test": 120}
    few = knn(toys.Rows(), data, labels="2/class", seeds=3)
    assert set(few.metrics) == {f"{n}top1{s}" for n in ("", "raw.", "untrained.") for s in ("", "_std")}
    assert any("k=20 is more than the 6" in note for note in few.protocol["notes"])


@pytest.mark.parametrize(
    ("baselines", "names"),
    [(False, {"top1"}), ("raw", {"top1", "raw.top1"}), ("untrained", {"top1", "untrained.top1"})],
)
def test_knn_evaluates_requested_baselines(data, baselines, names):
    whole, some = knn(toys.Rows(), data), knn(toys.Rows(), data, baselines=baselines)
    assert some.metrics == {name: whole.metrics[name] for name in names}
    assert any(f"evaluator.baselines={str(baselines).lower()}" in note for note in some.protocol["notes"])


def test_knn_rejects_unknown_baseline(data):
    for evaluator in (knn, probe):
        with pytest.raises(RequestError, match=r"evaluator\.baselines=pixels"):
            evaluator(toys.Rows(), data, baselines="pixels")


def test_knn_reports_seeds_without_effect(data):
    result = knn(toys.Rows(), data, seeds=5)
    assert "top1_std" not in result.metrics
    assert any("no effect" in note for note in result.protocol["notes"])


def test_knn_rejects_invalid_settings(data):
    for wrong in ({"k": 0}, {"temperature": 0.0}, {"labels": 0}, {"seeds": 0}):
        with pytest.raises(RequestError):
            knn(toys.Rows(), data, **wrong)
    rows = toys.dataset()
    rows.train.labels = None
    with pytest.raises(DataError, match="no labels"):
        knn(toys.Rows(), EvalData(rows))


def test_knn_on_gunpoint_matches_the_archive(test_data):
    """The UCR archive lists an error of .0867 for one Euclidean neighbour; z-normalised series rank alike by cosine."""
    from sslcli.data.sources.series import series

    gunpoint = series(path=str(test_data / "timeseries" / "GunPoint.npz"))
    result = knn(torch.nn.Flatten(), EvalData(gunpoint), k=1)
    assert result.metrics["raw.top1"] == pytest.approx(1 - 0.0867, abs=1e-4)
    assert result.metrics["top1"] == result.metrics["raw.top1"]


def test_notes_are_separate_per_evaluator(data):
    knn(toys.Rows(), data, k=1000, labels="2/class")
    assert knn(toys.Rows(), data).protocol["notes"] == []


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.1), (200, 0.1), (20, 0.07)])
def test_knn_matches_lightly(k, temperature):
    theirs = pytest.importorskip("lightly.utils.benchmarking.knn").knn_predict
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 7, (5000,), generator=g)
    centers = torch.randn(7, 24, generator=g)
    bank = torch.nn.functional.normalize(centers[y] + 2 * torch.randn(5000, 24, generator=g), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(300, 24, generator=g), dim=1)
    expected = theirs(queries, bank.T.contiguous(), y, 7, k, temperature)[:, 0]
    assert torch.equal(classify(bank, y, queries, k, temperature), expected)
