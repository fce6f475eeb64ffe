"""Rankings against scikit-learn, torchmetrics and pytorch-metric-learning, query by query, and by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from sslcli.errors import DataError, RequestError
from sslcli.evals import retrieval as module
from sslcli.evals.base.features import EvalData
from sslcli.evals.retrieval import query_metrics, rank, retrieval
from tests.evals import toys

CPU = torch.device("cpu")


def some(n: int, seed: int, classes: int = 4, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    centers = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    return centers[y] + torch.randn(n, d, generator=g), y


def of_one(similarity: list[float], right: list[bool]) -> dict[str, float]:
    """All measures of one query."""
    s, hit = torch.tensor([similarity]), torch.tensor(right)
    found = query_metrics(s.sort(dim=1).values, s[:, hit].sort(dim=1).values, 0)
    return {name: float(value[0]) for name, value in found.items()}


def slow(bank, y, queries, y_true, exclude_self=False):
    """Each query's numbers by its own sorted list; without ties."""
    rows = []
    table = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).double()
    for q, s in enumerate(table):
        order = [i for i in s.argsort(descending=True).tolist() if not (exclude_self and i == q)]
        hits = [bool(y[i] == y_true[q]) for i in order]
        r = sum(hits)
        precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
        row = {
            "map": sum(p for p, h in zip(precision, hits, strict=True) if h) / r,
            "map_at_r": sum(p for p, h in zip(precision[:r], hits[:r], strict=True) if h) / r,
            "r_precision": precision[r - 1],
        }
        for k in (1, 5, 10):
            row[f"recall@{k}"] = float(any(hits[:k]))
            if k > 1:
                row[f"precision@{k}"] = precision[k - 1]
        rows.append(row)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("block", [1 << 24, 1000])
def test_retrieval_matches_a_direct_computation(exclude_self, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    (bank, y), (queries, y_true) = some(150, 0), some(40, 1)
    if exclude_self:
        queries, y_true = bank, y
    found = rank(bank, y, queries, y_true, CPU, exclude_self)
    assert {name: float(v.mean()) for name, v in found.scores.items()} == pytest.approx(
        slow(bank, y, queries, y_true, exclude_self)
    )
    assert (found.gallery, found.queries, found.without) == (150, len(queries), 0)


def test_average_precision_matches_scikit_learn():
    from sklearn.metrics import average_precision_score

    g = torch.Generator().manual_seed(0)
    for levels in (3, 20, 10_000):
        s = (torch.rand(60, generator=g) * levels).floor()
        right = torch.rand(60, generator=g) < 0.3
        found = of_one(s.tolist(), right.tolist())["map"]
        assert found == pytest.approx(average_precision_score(right.numpy(), s.numpy()))


def test_retrieval_metrics_match_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        s, right = torch.rand(30, generator=g), torch.rand(30, generator=g) < 0.2
        right[3] = True
        found = of_one(s.tolist(), right.tolist())
        assert found["map"] == pytest.approx(float(functional.retrieval_average_precision(s, right)), abs=1e-6)
        assert found["r_precision"] == pytest.approx(float(functional.retrieval_r_precision(s, right)), abs=1e-6)
        for k in (1, 5, 10):
            assert found[f"recall@{k}"] == float(functional.retrieval_hit_rate(s, right, top_k=k))
        for k in (5, 10):
            assert found[f"precision@{k}"] == pytest.approx(
                float(functional.retrieval_precision(s, right, top_k=k)), abs=1e-6
            )


@pytest.mark.filterwarnings("ignore")
def test_retrieval_matches_pytorch_metric_learning():
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    from pytorch_metric_learning.distances import CosineSimilarity

    (bank, y), (queries, y_true) = some(200, 0), some(50, 1)
    names = ("mean_average_precision", "mean_average_precision_at_r", "r_precision", "precision_at_1")
    calculator = accuracy.AccuracyCalculator(include=names, k=200, knn_func=inference.CustomKNN(CosineSimilarity()))
    theirs = calculator.get_accuracy(queries, y_true, bank, y)
    ours = {name: float(v.mean()) for name, v in rank(bank, y, queries, y_true, CPU).scores.items()}
    for name, other in zip(("map", "map_at_r", "r_precision", "recall@1"), names, strict=True):
        assert ours[name] == pytest.approx(theirs[other], abs=1e-5)


def test_retrieval_metrics_of_known_cases():
    found = of_one([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, False, True, False, False, True])
    assert found["map"] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert found["map_at_r"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["r_precision"] == pytest.approx(2 / 3)
    assert found["recall@1"] == 1
    assert found["precision@5"] == pytest.approx(2 / 5)
    assert "recall@10" not in found  # there are six


def test_retrieval_of_ties_is_the_mean_over_orders():
    s, right = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0], [False, True, False, True, False, False, True]
    totals = {"recall@1": 0.0, "recall@5": 0.0, "precision@5": 0.0, "r_precision": 0.0}
    orders = list(itertools.permutations(range(1, 6)))
    for order in orders:
        hits = [right[i] for i in (0, *order, 6)]
        totals["recall@1"] += hits[0]
        totals["recall@5"] += any(hits[:5])
        totals["precision@5"] += sum(hits[:5]) / 5
        totals["r_precision"] += sum(hits[:3]) / 3
    found = of_one(s, right)
    for name, total in totals.items():
        assert found[name] == pytest.approx(total / len(orders)), name
    some_right = of_one([1.0] * 6, [True, False, False, True, False, False])
    assert some_right["recall@1"] == pytest.approx(1 / 3)
    assert some_right["recall@5"] == 1  # four are wrong at most
    assert some_right["precision@5"] == pytest.approx(1 / 3)


def test_retrieval_of_collapsed_features_is_chance():
    _, y = some(100, 0)
    found = rank(torch.ones(100, 3), y, torch.ones(20, 3), y[:20], CPU).scores
    shares = torch.tensor([float((y == c).double().mean()) for c in y[:20].sort().values], dtype=torch.float64)
    torch.testing.assert_close(found["map"], shares)
    torch.testing.assert_close(found["recall@1"], shares)


def test_retrieval_skips_queries_without_relevant_items():
    (bank, y), (queries, y_true) = some(150, 0), some(40, 1)
    expected = rank(bank[y > 0], y[y > 0], queries[y_true > 0], y_true[y_true > 0], CPU)
    y[y == 0] = -1
    found = rank(bank, y, queries, y_true, CPU)
    for name, values in expected.scores.items():
        torch.testing.assert_close(found.scores[name], values)
    assert found.without == int((y_true == 0).sum())
    with pytest.raises(DataError, match="no labelled test sample"):
        rank(bank, torch.where(y > 0, 3, y), queries[:1], torch.tensor([2]), CPU)


def test_retrieval_metrics_and_protocol(data):
    result = retrieval(toys.Rows(), data)
    names = {"map", "map_at_r", "r_precision", "recall@1", "recall@5", "recall@10", "precision@5", "precision@10"}
    assert set(result.metrics) == {f"{kind}{name}" for kind in ("", "raw.", "untrained.") for name in names}
    assert result.metrics["map"] > 0.8 > result.metrics["untrained.map"]
    assert result.protocol["splits"] == {"gallery": 240, "queries": 120}
    own = retrieval(toys.Rows(), data, gallery="test", baselines=False)
    assert own.protocol["splits"] == {"gallery": 120, "queries": 120}
    with pytest.raises(RequestError, match="train or test"):
        retrieval(toys.Rows(), data, gallery="both")


def test_recall_at_1_equals_1nn_accuracy(data):
    from sslcli.evals.knn import knn

    assert retrieval(toys.Rows(), data).metrics["recall@1"] == pytest.approx(
        knn(toys.Rows(), data, k=1).metrics["top1"]
    )


def test_retrieval_ranking_ignores_test_labels():
    rows = toys.dataset()
    one = retrieval(toys.Rows(), EvalData(rows))
    rows.test.labels = rows.test.labels.flip(0)
    other = retrieval(toys.Rows(), EvalData(rows))
    assert one.protocol == other.protocol
    assert one.metrics != other.metrics


def test_retrieval_saves_the_sheet(data, tmp_path):
    from PIL import Image

    for gallery in ("train", "test"):
        sheet = retrieval(toys.Rows(), data, gallery=gallery).artefacts["neighbours.png"]
        sheet.save(tmp_path / "n.png")
        with Image.open(tmp_path / "n.png") as image:
            assert image.width > 900
        assert len(sheet.rows) == 3
        for row in sheet.rows:
            assert len(row.cells) == 9
            assert row.cells[0].mark == ""
            assert {cell.mark for cell in row.cells[1:]} <= {"right", "wrong"}
            assert row.about.startswith(str(sum(cell.mark == "right" for cell in row.cells)))
        if gallery == "test":  # a query is not its own neighbour
            assert not any(
                torch.equal(row.cells[0].sample.pixels, cell.sample.pixels)
                for row in sheet.rows
                for cell in row.cells[1:]
            )


def test_retrieval_saves_the_sheet_without_labels():
    rows = toys.dataset()
    rows.train.labels = None
    result = retrieval(toys.Rows(), EvalData(rows))
    assert result.metrics == {}
    assert len(result.artefacts["neighbours.png"].rows) == 10
    assert {cell.mark for row in result.artefacts["neighbours.png"].rows for cell in row.cells} == {""}
    assert any("no labels" in note for note in result.protocol["notes"])
