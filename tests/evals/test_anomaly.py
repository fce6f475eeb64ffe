"""Anomaly scores against scikit-learn's, and the one-class protocol on known cases."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from sslcli.data.dataset import ArraySource
from sslcli.errors import RequestError
from sslcli.evals.anomaly import anomaly
from sslcli.evals.artefacts.anomaly_sheets import make_artefacts
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit import anomaly_scores
from sslcli.evals.fit.anomaly_protocols import AnomalyResult, Extremes, misranked
from sslcli.evals.metrics import anomaly_metrics
from sslcli.evals.metrics.anomaly_metrics import outlying
from sslcli.methods.autoencoder import Autoencoder
from sslcli.views import Views
from tests.evals import toys

CPU = torch.device("cpu")


def normals(n: int, d: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(7))
    return torch.randn(n, d, generator=g) @ mix + offset


# scores ---------------------------------------------------------------------------------------------------------------


def test_knn_score_matches_scikit_learn_cosine_distances():
    from sklearn.neighbors import NearestNeighbors

    normal, queries = normals(200, 6, 0), normals(30, 6, 1)
    theirs, _ = (
        NearestNeighbors(n_neighbors=5, metric="cosine")
        .fit(normal.double().numpy())
        .kneighbors(queries.double().numpy())
    )
    ours = anomaly_scores.knn(normal, queries, 5, CPU)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.mean(axis=1)).float(), atol=1e-5, rtol=1e-4)
    assert anomaly_scores.knn(normal[:3], queries, 5, CPU).shape == (30,)  # as many as there are


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_knn_l2_score_matches_scikit_learn_distances(offset, monkeypatch):
    from sklearn.neighbors import NearestNeighbors

    normal, queries = normals(200, 6, 0, offset), normals(30, 6, 1, offset)
    queries[0] = normal[0]
    model = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(normal.double().numpy())
    expected = torch.from_numpy(model.kneighbors(queries.double().numpy())[0].mean(axis=1)).float()
    torch.testing.assert_close(anomaly_scores.knn_l2(normal, queries, 5, CPU), expected, atol=1e-4, rtol=1e-4)
    assert float(anomaly_scores.knn_l2(normal, queries[:1], 1, CPU)) == 0.0
    monkeypatch.setattr(anomaly_scores, "BLOCK", 200)
    torch.testing.assert_close(anomaly_scores.knn_l2(normal, queries, 5, CPU), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("n", "d", "offset"), [(300, 8, 0.0), (300, 8, 500.0), (20, 50, 0.0), (2, 3, 0.0)])
def test_covariance_matches_scikit_learn(n, d, offset):
    from sklearn.covariance import LedoitWolf

    x = normals(n, d, 0, offset)
    theirs = LedoitWolf().fit(x.double().numpy())
    covariance, shrink, mean = anomaly_scores.ledoit_wolf(x)
    assert shrink == pytest.approx(theirs.shrinkage_, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(covariance, torch.from_numpy(theirs.covariance_), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(mean, torch.from_numpy(theirs.location_))
    if n > 2:
        queries = normals(40, d, 1, offset)
        expected = torch.from_numpy(theirs.mahalanobis(queries.double().numpy())).sqrt().float()
        torch.testing.assert_close(anomaly_scores.mahalanobis(x, queries, CPU), expected, rtol=1e-4, atol=1e-4)


def test_mahalanobis_score_of_known_case():
    x = torch.tensor(
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    )  # a multiple of the identity: nothing to shrink
    queries = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(anomaly_scores.mahalanobis(x, queries, CPU), torch.tensor([0.0, 5 * 2**0.5]))
    still = anomaly_scores.mahalanobis(torch.ones(4, 2), queries + 1, CPU)  # does not vary: Euclidean
    torch.testing.assert_close(still, torch.tensor([0.0, 5.0]))


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_ocsvm_score_matches_scikit_learn(offset, monkeypatch):
    from sklearn.svm import OneClassSVM

    normal, queries = normals(150, 5, 0, offset), normals(40, 5, 1, offset)
    gamma = 1 / float(normal.double().var(dim=0, correction=0).sum())
    theirs = OneClassSVM(nu=0.1, gamma=gamma).fit(normal.double().numpy())
    ours = anomaly_scores.ocsvm(normal, queries, 0.1, 0, CPU)
    expected = -torch.from_numpy(theirs.score_samples(queries.double().numpy())).float()
    torch.testing.assert_close(ours, expected, rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(anomaly_scores, "SUPPORT_FROM", 100)
    some = anomaly_scores.ocsvm(normal, queries, 0.1, 0, CPU)
    assert torch.equal(some, anomaly_scores.ocsvm(normal, queries, 0.1, 0, CPU))
    assert float(torch.corrcoef(torch.stack([some, ours]))[0, 1]) > 0.9
    assert anomaly_scores.ocsvm(torch.ones(5, 2), torch.ones(3, 2), 0.5, 0, CPU).isfinite().all()


def test_anomaly_scores_are_equal_in_blocks(monkeypatch):
    normal, queries = normals(150, 5, 0), normals(40, 5, 1)
    scores = (
        lambda: anomaly_scores.mahalanobis(normal, queries, CPU),
        lambda: anomaly_scores.ocsvm(normal, queries, 0.2, 0, CPU),
    )
    whole = [score() for score in scores]
    monkeypatch.setattr(anomaly_scores, "BLOCK", 35)
    for score, expected in zip(scores, whole, strict=True):
        torch.testing.assert_close(score(), expected)


# how well -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [5, 1000])  # with many ties, and with few
def test_auroc_and_fpr95_match_scikit_learn(levels):
    from sklearn.metrics import roc_auc_score, roc_curve

    g = torch.Generator().manual_seed(levels)
    for share in (0.1, 0.5, 0.9):
        anomalous = torch.rand(300, generator=g) < share
        score = ((torch.rand(300, generator=g) + 0.3 * anomalous) * levels).floor()
        assert anomaly_metrics.auroc(score, anomalous) == pytest.approx(roc_auc_score(anomalous.numpy(), score.numpy()))
        fpr, tpr, _ = roc_curve((~anomalous).numpy(), -score.numpy(), drop_intermediate=False)  # positive is normal
        assert anomaly_metrics.fpr95(score, anomalous) == pytest.approx(fpr[(tpr >= 0.95).argmax()])


def test_auroc_and_fpr95_of_known_cases():
    score = torch.tensor([1.0, 2.0, 3.0, 2.0, 4.0])
    anomalous = torch.tensor([False, False, False, True, True])
    assert anomaly_metrics.auroc(score, anomalous) == pytest.approx((1.5 + 3) / 6)
    assert anomaly_metrics.fpr95(score, anomalous) == 0.5  # all three normal ones pass below 3, and so does the 2
    score = torch.cat([torch.arange(20.0), torch.tensor([17.5, 18.5, 30.0, 40.0])])
    anomalous = torch.arange(24) >= 20
    assert anomaly_metrics.fpr95(score, anomalous) == 0.25  # 19 of 20 pass at 18


def test_p_values_of_known_cases_and_of_normal_samples():
    calibration = torch.tensor([1.0, 2.0, 3.0])
    p = anomaly_metrics.p_values(torch.tensor([0.0, 2.0, 9.0]), calibration)
    assert p.tolist() == [1.0, 0.75, 0.25]
    draws = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert float((anomaly_metrics.p_values(draws[2000:], draws[:2000]) <= 0.05).double().mean()) == pytest.approx(
        0.05, abs=0.015
    )


# the evaluator --------------------------------------------------------------------------------------------------------

SCORES = ("knn", "knn_l2", "mahalanobis", "ocsvm")


def test_anomaly_of_each_class_in_turn(data):
    result = anomaly(toys.Rows(), data)
    names = {"auroc", "fpr95"} | {f"{s}.{m}" for s in SCORES for m in ("auroc", "fpr95")}
    assert set(result.metrics) == {f"{kind}{name}" for kind in ("", "raw.", "untrained.") for name in names}
    metrics = result.metrics
    assert metrics["auroc"] == metrics["knn.auroc"] > 0.9 > metrics["untrained.auroc"]
    assert result.details["names"] == ["row 0", "row 1", "row 2"]
    for kind, prefix in (("backbone", ""), ("raw", "raw."), ("untrained", "untrained.")):
        for score in SCORES:
            mean = sum(result.details[kind]["auroc"][score]) / 3
            assert metrics[f"{prefix}{score}.auroc"] == pytest.approx(mean, abs=1e-4)
    json.dumps([result.protocol, result.details], allow_nan=False)


def test_anomaly_of_one_class_equals_its_turn_in_each(data):
    every = anomaly(toys.Rows(), data)
    one = anomaly(toys.Rows(), data, normal="row 1", scores="mahalanobis", baselines=False)
    assert set(one.metrics) == {"auroc", "fpr95", "mahalanobis.auroc", "mahalanobis.fpr95"}
    assert one.metrics["auroc"] == pytest.approx(every.details["backbone"]["auroc"]["mahalanobis"][1], abs=1e-5)
    two = anomaly(toys.Rows(), data, normal=["row 0", "row 1"], baselines=False)
    assert two.details["names"] == ["row 0, row 1"]


def test_anomaly_matches_its_definition(data):
    """By hand: normal is class 2, fitted to its training samples alone."""
    from sklearn.metrics import roc_auc_score

    (x, y), (queries, y_true) = data.features(toys.Rows(), "train"), data.features(toys.Rows(), "test")
    score = anomaly_scores.knn(x[y == 2], queries, 5, CPU)
    found = anomaly(toys.Rows(), data, normal="row 2", baselines=False).metrics["auroc"]
    assert found == pytest.approx(roc_auc_score((y_true != 2).numpy(), score.numpy()))


def test_anomaly_scores_ignore_test_labels():
    rows = toys.dataset()
    for normal in ("each", "all"):
        one = anomaly(toys.Rows(), EvalData(rows), normal=normal)
        rows.test.labels = rows.test.labels.flip(0)
        other = anomaly(toys.Rows(), EvalData(rows), normal=normal)
        assert one.protocol == other.protocol
        shown = [[c.sample for row in r.artefacts["samples.png"].rows for c in row.cells] for r in (one, other)]
        assert all(
            torch.equal(a.pixels, b.pixels) for a, b in zip(*shown, strict=True)
        )  # the same samples stand at both ends
        if normal == "all":
            assert one.metrics == other.metrics
            assert one.artefacts["scores.csv"].rows == other.artefacts["scores.csv"].rows
        else:
            assert one.metrics != other.metrics


def test_anomaly_score_ignores_other_test_samples():
    """Thresholds and scores are of training samples: what else is in the test split does not matter."""
    rows = toys.dataset()
    one = anomaly(toys.Rows(), EvalData(rows), normal="all", baselines=False)
    x = rows.test.x.clone()
    x[60:] = 255 - x[60:]
    rows.test = ArraySource(x, rows.test.labels)
    other = anomaly(toys.Rows(), EvalData(rows), normal="all", baselines=False)
    kept = [
        {tuple(row[1:]) for row in r.artefacts["scores.csv"].rows if int(row[1].split()[1]) < 60} for r in (one, other)
    ]
    assert kept[0] == kept[1]
    assert other.metrics["flagged"] > 0.5 > 0.15 > one.metrics["flagged"]


def test_anomaly_without_labels(tmp_path):
    rows = toys.dataset()
    rows.train.labels, rows.test.labels = None, None
    rows.test.x[7] = 255 - rows.test.x[7]
    rows.test.names = [f"part {i}.png" for i in range(120)]
    result = anomaly(toys.Rows(), EvalData(rows), normal="all")
    assert {"flagged", "knn.flagged", "ocsvm.flagged", "raw.flagged"} <= set(result.metrics)
    assert set(result.artefacts) == {"scores.csv", "samples.png"}
    for name, artefact in result.artefacts.items():
        artefact.save(tmp_path / name)
    table = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert list(table[0]) == ["rank", "sample", *(n for s in SCORES for n in (f"{s}_p", s))]
    assert len(table) == 120
    assert table[0]["sample"] == "part 7.png"
    assert float(table[0]["knn"]) == max(float(row["knn"]) for row in table)
    default = anomaly(toys.Rows(), EvalData(rows))  # normal=each has no class to take
    assert default.metrics == result.metrics
    assert any("normal=all" in note for note in default.protocol["notes"])


@pytest.mark.parametrize("divided", [False, True])
def test_anomaly_scores_every_unlabeled_sample(tmp_path, divided):
    """Where nothing is held out, and where an earlier version held out a fifth of unlabelled samples."""
    rows = toys.dataset(60, 15)
    rows.train.labels = rows.test.labels = None
    rows.train.names, rows.test.names = ([f"{part} {i}.png" for i in range(n)] for part, n in (("a", 60), ("b", 15)))
    rows.train.x[7] = 255 - rows.train.x[7]
    if divided:
        rows.split = "0123"
    else:
        rows.test = None
    result = anomaly(toys.Rows(), EvalData(rows, untrained=toys.Blind))
    assert {"outlying", "knn.outlying", "raw.outlying"} <= set(result.metrics)
    assert "flagged" not in result.metrics
    for name, artefact in result.artefacts.items():
        artefact.save(tmp_path / name)
    table = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert sorted(row["sample"] for row in table) == sorted([*rows.train.names, *(rows.test.names if divided else [])])
    assert table[0]["sample"] == "a 7.png"
    assert 0 < result.metrics["outlying"] < 0.2
    assert result.protocol["splits"] == {"all": 75 if divided else 60}
    assert divided or any("no samples are held out" in note for note in result.protocol["notes"])


def test_anomaly_score_excludes_the_sample_itself():
    """Were it among what its score is fitted to, its distance to the nearest would be 0."""
    rows = toys.dataset(20, 1)
    rows.train.labels, rows.test = None, None
    table = anomaly(toys.Rows(), EvalData(rows), scores=["knn_l2"], k=1, baselines=False).artefacts["scores.csv"].rows
    assert all(float(row[2]) > 0 for row in table)


def test_outlying_of_known_case():
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 100.0, float("nan")])
    assert outlying(scores) == pytest.approx(1 / 6)
    assert outlying(torch.ones(9)) == 0


def test_anomaly_saves_sheets(data, tmp_path):
    from PIL import Image

    for normal, marks in (("each", {"", "wrong"}), ("row 0", {"", "wrong"}), ("all", {""})):
        result = anomaly(toys.Rows(), data, normal=normal)
        sheet = result.artefacts["samples.png"]
        assert {cell.mark for row in sheet.rows for cell in row.cells} <= marks
        for name, artefact in result.artefacts.items():
            assert artefact.caption
            artefact.save(tmp_path / name)
        with Image.open(tmp_path / "samples.png") as image:
            assert image.width > 1000
    assert len(anomaly(toys.Rows(), data).artefacts["samples.png"].rows) == 3


@pytest.mark.parametrize(
    ("scores", "anomalous", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.9], [False, False, False, True], []),  # one anomaly: the second highest is not misranked
        ([0.1, 0.9, 0.3, 0.2], [False, False, True, False], [1, 2]),
        ([3.0, 2.0, 1.0], [False, True, True], [0, 2]),
    ],
)
def test_misranked_samples_of_known_cases(scores, anomalous, expected):
    assert misranked(torch.tensor(scores), torch.tensor(anomalous)).nonzero().flatten().tolist() == expected


def test_sheet_marks_misranked_samples_alone(data):
    """Two of thirty are anomalous: the others among the highest scores are where they belong."""

    def sheet(scores):
        ascending = torch.tensor(scores).argsort()
        rows = torch.cat([ascending[:5], ascending[-5:]])
        wrong = misranked(torch.tensor(scores), torch.arange(30) >= 28)
        ends = Extremes("normal: row 0", "AUROC", rows.tolist(), wrong[rows].tolist())
        result = AnomalyResult({}, {}, ["row 0"], ends=[ends], samples=[("test", i) for i in range(30)])
        return make_artefacts({"": result}, "knn", data)["samples.png"]

    perfect = sheet([float(i) for i in range(30)])
    assert {cell.mark for cell in perfect.rows[0].cells} == {""}
    assert perfect.legend is None
    assert perfect.heads == ("least anomalous", "most anomalous")
    assert perfect.caption.endswith("none of 10 are misranked")
    swapped = sheet([30.0, *(float(i) for i in range(1, 30))])
    assert [cell.mark for cell in swapped.rows[0].cells].count("wrong") == 2
    assert swapped.legend == ("", "misranked")
    assert swapped.caption.endswith("2 of 10 are misranked")


def test_anomaly_with_reconstruction_score():
    rows = toys.dataset()

    class Vector(toys.Rows):
        input_shape = (1, 8, 8)
        values = rows.values

    def data(**given):
        return EvalData(rows, untrained=toys.Blind, **given)

    with pytest.raises(RequestError, match="reconstruct"):
        anomaly(toys.Rows(), data(), scores="reconstruction")
    method = Autoencoder(Vector(), width=4).eval()
    views = Views({"clean": 1}, {}, rows)
    known = data(pretraining=lambda: (method, views))
    result = anomaly(toys.Rows(), known, scores=["reconstruction", "knn"])
    assert {"reconstruction.auroc", "knn.auroc", "raw.knn.auroc"} <= set(result.metrics)
    assert not any(name.startswith(("raw.reconstruction", "untrained.reconstruction")) for name in result.metrics)
    assert result.metrics["auroc"] == result.metrics["reconstruction.auroc"]
    assert set(anomaly(toys.Rows(), known, scores="reconstruction", normal="all").metrics) == {
        "flagged",
        "reconstruction.flagged",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": []},
        {"scores": ["knn", "knn"]},
        {"scores": "knnn"},
        {"k": 0},
        {"nu": 0},
        {"nu": 1.5},
        {"normal": "row 7"},
        {"normal": []},
    ],
)
def test_anomaly_rejects_invalid_settings(data, wrong):
    with pytest.raises(RequestError):
        anomaly(toys.Rows(), data, **wrong)


def test_anomaly_skips_uninformative_classes():
    rows = toys.dataset()
    rows.train.labels[rows.train.labels == 2] = 1
    rows.train.labels[0] = 2  # one sample
    result = anomaly(toys.Rows(), EvalData(rows), baselines=False)
    assert result.details["names"] == ["row 0", "row 1"]
    assert any("row 2" in note for note in result.protocol["notes"])
