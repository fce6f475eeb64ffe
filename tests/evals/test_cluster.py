"""Clustering against scikit-learn, torchmetrics and small cases worked out by hand."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.image_text.shapes import shapes
from sslcli.errors import RequestError, TrainingError
from sslcli.evals.artefacts.cluster_sheets import cluster_terms, exemplars, most_probable, term_table
from sslcli.evals.base.features import EvalData
from sslcli.evals.cluster import cluster
from sslcli.evals.fit import clustering
from sslcli.evals.fit.clustering import Clustering, Settings, Space, estimate, fit_clusters
from sslcli.evals.metrics.agreement import agreement, contingency, mean_ari
from sslcli.nn.values import Continuous
from tests.evals import toys

CPU = torch.device("cpu")


def blobs(n: int, k: int, d: int = 6, spread: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(k, d, generator=torch.Generator().manual_seed(99)) * 3
    y = torch.randint(0, k, (n,), generator=g)
    return centers[y] + spread * torch.randn(n, d, generator=g), y


def random_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 5, (300,), generator=g)
    a = torch.where(torch.rand(300, generator=g) < 0.6, (y * 3 + 1) % 7, torch.randint(0, 7, (300,), generator=g))
    return a, y


# scores ---------------------------------------------------------------------------------------------------------------


def test_agreement_of_known_cases():
    a, y = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 1, 0, 0, 0, 0])
    assert agreement(a, y)["acc"] == pytest.approx(4 / 6)  # 0 is class 1, 1 is class 0, 2 is none
    assert contingency(a, y).tolist() == [[1, 2], [2, 0], [1, 0], [0, 0]]
    perfect = agreement(torch.tensor([4, 4, 0, 2]), torch.tensor([0, 0, 1, 2]))
    assert perfect == pytest.approx({"acc": 1.0, "nmi": 1.0, "ari": 1.0})
    # ARI of this table: 2 pairs agree, 4 * 3 / 15 expected, (4 + 3) / 2 at most
    a, y = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    assert agreement(a, y)["ari"] == pytest.approx((1 - 4 * 3 / 15) / (3.5 - 4 * 3 / 15))
    one = agreement(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 1, 1]))
    assert one == pytest.approx({"acc": 0.5, "nmi": 0.0, "ari": 0.0})


def test_agreement_with_noise_and_missing_labels():
    a, y = torch.tensor([0, 0, -1, -1, 1, 5]), torch.tensor([0, 0, 1, 1, 1, -1])
    assert agreement(a, y)["acc"] == pytest.approx(3 / 5)  # noise is never right, the last has no class
    assert agreement(torch.full((4,), -1), torch.tensor([0, 0, 1, 1]))["acc"] == 0.0


def test_cluster_accuracy_is_the_best_matching():
    a, y = random_pair()
    counts = contingency(a, y)[:-1]
    best = max(sum(int(counts[c, i]) for i, c in enumerate(p)) for p in permutations(range(7), 5))
    assert agreement(a, y)["acc"] == pytest.approx(best / 300)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_agreement_matches_torchmetrics():
    clustering = pytest.importorskip("torchmetrics.functional.clustering")
    a, y = random_pair()
    ours = agreement(a, y)
    assert ours["nmi"] == pytest.approx(float(clustering.normalized_mutual_info_score(a, y)), abs=1e-5)
    assert ours["ari"] == pytest.approx(float(clustering.adjusted_rand_score(a, y)), abs=1e-5)
    assert mean_ari([a, y, a]) == pytest.approx((1 + 2 * ours["ari"]) / 3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_silhouette_matches_scikit_learn(metric):
    from sklearn.metrics import silhouette_score

    x, y = blobs(200, 4, spread=2.0)
    y[0] = 4  # alone
    x = torch.nn.functional.normalize(x, dim=1) if metric == "cosine" else x + 100
    ours = clustering.silhouette(clustering.distances(x, metric == "cosine"), y)
    assert ours == pytest.approx(silhouette_score(x.double().numpy(), y.numpy(), metric=metric), abs=2e-4)


def test_silhouette_of_known_cases():
    table = clustering.distances(torch.tensor([[0.0], [1.0], [4.0], [6.0]]))
    s = [(4 - 0) / 5, 3 / 4, (3.5 - 2) / 3.5, (5.5 - 2) / 5.5]
    assert clustering.silhouette(table, torch.tensor([0, 0, 1, 1])) == pytest.approx((0.8 + 0.75 + s[2] + s[3]) / 4)
    noisy = clustering.silhouette(table, torch.tensor([0, 0, 1, -1]))
    assert noisy == pytest.approx((3 / 4 + 2 / 3 + 0 + 0) / 4)  # alone and noise: 0
    for alike in ([0, 0, 0, 0], [-1, -1, -1, -1]):
        assert clustering.silhouette(table, torch.tensor(alike)) == 0.0
    assert clustering.silhouette(torch.zeros(4, 4), torch.tensor([0, 0, 1, 1])) == 0.0


# dividing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", clustering.METHODS)
def test_clusters_recover_blobs_of_unseen_samples(method):
    (x, y), (queries, y_true) = blobs(400, 5), blobs(150, 5, seed=1)
    settings = Settings(method, starts=3)
    space = Space(x, settings, 0)
    found = fit_clusters(space(x), space(queries), 5, settings, 0, CPU)
    assert found.clusters == 5
    assert agreement(found.train, y)["ari"] > 0.95
    assert agreement(found.queries, y_true)["acc"] > 0.95
    again = fit_clusters(space(x), space(queries[:10]), 5, settings, 0, CPU)
    assert torch.equal(again.queries, found.queries[:10])  # where a sample goes is its own affair


def test_nearest_matches_cdist():
    g = torch.Generator().manual_seed(0)
    x, centers = torch.randn(500, 9, generator=g) + 50, torch.randn(30, 9, generator=g) + 50
    expected = torch.cdist(x.double(), centers.double()).argmin(dim=1)
    assert torch.equal(clustering.nearest(x, centers), expected)


def test_nearest_is_equal_in_blocks(monkeypatch):
    (x, _), (centers, _) = blobs(300, 4), blobs(7, 4, seed=2)
    whole = clustering.nearest(x, centers)
    monkeypatch.setattr(clustering, "BLOCK", 7 * 13)
    assert torch.equal(clustering.nearest(x, centers), whole)


def test_gmm_matches_scikit_learn():
    from sklearn.mixture import GaussianMixture

    x, _ = blobs(400, 3, d=4, spread=1.0)
    theirs = GaussianMixture(3, n_init=2, max_iter=200, random_state=7).fit_predict(x.double().numpy())
    found = fit_clusters(x, x[:5], 3, Settings("gmm", starts=2), 7, CPU)
    assert found.train.tolist() == theirs.tolist()
    assert "full" in found.notes[0]
    few = fit_clusters(x[:40], x[:5], 3, Settings("gmm"), 7, CPU)
    assert "diagonal" in few.notes[0]


def test_hdbscan_on_a_subset_of_the_samples(monkeypatch):
    x, y = blobs(600, 4)
    x[-1] = 1000.0  # far from all: noise, and nobody's neighbour
    whole = fit_clusters(x, x, 0, Settings("hdbscan"), 0, CPU)
    assert whole.clusters == 4
    assert int(whole.train[-1]) == clustering.NOISE
    assert torch.equal(whole.train, whole.queries)
    monkeypatch.setattr(clustering, "HDBSCAN_ON", 300)
    part = fit_clusters(x, x, 0, Settings("hdbscan"), 0, CPU)
    assert agreement(part.queries[:-1], y[:-1])["ari"] > 0.95
    assert "300 training samples" in part.notes[0]


def test_space_matches_scikit_learn_pca():
    from sklearn.decomposition import PCA

    x, _ = blobs(300, 4, d=40, spread=2.0)
    z = Space(x + 30, Settings("gmm", dims=5), 0)(x + 30)
    theirs = torch.from_numpy(PCA(5, svd_solver="full").fit_transform(x.double().numpy())).float()
    scale = z.norm() / theirs.norm()
    torch.testing.assert_close(z.abs(), (theirs * scale).abs(), atol=1e-3, rtol=1e-3)
    assert float(z.var(dim=0, correction=0).mean()) == pytest.approx(1, abs=1e-3)
    with pytest.raises(TrainingError, match="are equal"):
        Space(torch.ones(20, 3), Settings("gmm"), 0)
    assert Space(x, Settings("kmeans"), 0)(x) is x


@pytest.mark.parametrize("k", [2, 6, 17])
def test_estimate_returns_the_number_of_blobs(k):
    x, _ = blobs(600, k, d=12)
    found, curve = estimate(x, False, 40, 0)
    assert abs(found - k) <= (1 if k > 15 else 0)  # above 15 not each number is tried
    assert max(curve["silhouette"]) == curve["silhouette"][curve["k"].index(found)]
    assert estimate(x[:3], False, 40, 0)[0] == 1


def test_ladder_of_cluster_counts():
    assert clustering.ladder(6) == [2, 3, 4, 5, 6]
    assert clustering.ladder(100)[-3:] == [64, 77, 92]
    assert clustering.ladder(1) == []


def test_most_probable_rows_of_each_cluster():
    p = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.8, 0.1, 0.1], [0.7, 0.3, 0.0], [0.45, 0.55, 0.0]])
    assert [rows.tolist() for rows in most_probable(p, count=2)] == [[2, 3], [1, 4], []]


def test_exemplars_are_nearest_to_the_mean():
    x = torch.tensor([[0.0], [10.0], [1.0], [2.0], [11.0], [50.0]])
    found = exemplars(x, torch.tensor([0, 1, 0, 0, 1, -1]), 3, count=2)
    assert [f.tolist() for f in found] == [[2, 0], [1, 4], []]


# the evaluator --------------------------------------------------------------------------------------------------------


def test_cluster_metrics_and_protocol(data):
    result = cluster(toys.Rows(), data, seeds=3, starts=2)
    names = {"acc", "nmi", "ari", "silhouette"}
    assert set(result.metrics) == {
        f"{kind}{name}{std}" for kind in ("", "raw.", "untrained.") for name in names for std in ("", "_std")
    } | {"stability", "raw.stability", "untrained.stability"}
    assert result.metrics["acc"] > 0.9 > result.metrics["untrained.acc"]
    assert result.metrics["stability"] > 0.95
    assert result.protocol["clusters"] == [3, 3, 3]
    assert result.protocol["splits"] == {"train": 240, "test": 120, "labelled": 120}
    assert result.details["train"]["acc"] > 0.9
    json.dumps([result.protocol, result.details], allow_nan=False)
    again = cluster(toys.Rows(), EvalData(data.dataset, untrained=toys.Blind), seeds=3, starts=2)
    assert again.metrics == result.metrics


def test_cluster_with_one_seed_and_auto_count(data):
    result = cluster(toys.Rows(), data, k="auto", method="spherical", baselines=False)
    assert set(result.metrics) == {"acc", "nmi", "ari", "silhouette", "clusters"}
    assert result.metrics["clusters"] == 3
    assert result.protocol["clusters"] == [3]
    assert result.details["k_curve"]["k"][:3] == [2, 3, 4]
    assert any("seeds=5" in note for note in result.protocol["notes"])


def test_estimated_counts_of_baselines_are_reported(data, capsys):
    result = cluster(toys.Rows(), data, k="auto", seeds=2, k_max=6)
    counts = {name: result.metrics[f"{name}clusters"] for name in ("", "raw.", "untrained.")}
    assert counts[""] == 3 == result.protocol["clusters"][0]
    assert counts["untrained."] == result.protocol["baselines"]["untrained"]["clusters"][0] != 3
    said = f"3 for the backbone, {counts['raw.']:.0f} for raw, {counts['untrained.']:.0f} for untrained"
    assert any(said in note for note in result.protocol["notes"])
    err = capsys.readouterr().err
    assert said in err
    assert "evaluator.k=3 compares at one number of clusters" in err
    assert not any("clusters" in name for name in cluster(toys.Rows(), data, k=3).metrics)


def test_hdbscan_reports_noise_and_single_draw(data):
    result = cluster(toys.Rows(), data, method="hdbscan", seeds=3, baselines=False)
    assert set(result.metrics) == {"acc", "nmi", "ari", "silhouette", "clusters", "noise"}
    assert any("seeds=3 has no effect" in note for note in result.protocol["notes"])


def test_cluster_of_noise_only(data, tmp_path):
    result = cluster(toys.Rows(), data, method="hdbscan", min_cluster_size=200, baselines=False)
    assert result.metrics == {"acc": 0, "nmi": 0, "ari": 0, "silhouette": 0, "clusters": 0, "noise": 1}
    assert set(result.artefacts) == {"assignment.csv", "table.png"}
    result.artefacts["table.png"].save(tmp_path / "t.png")


@pytest.mark.parametrize("method", clustering.METHODS)
def test_cluster_fit_ignores_test_labels(method):
    rows = toys.dataset()
    one = cluster(toys.Rows(), EvalData(rows), method=method, seeds=2, k="auto", k_max=6)
    rows.test.labels = rows.test.labels.flip(0)
    other = cluster(toys.Rows(), EvalData(rows), method=method, seeds=2, k="auto", k_max=6)
    assert one.artefacts["assignment.csv"].rows == other.artefacts["assignment.csv"].rows
    assert one.protocol == other.protocol
    assert one.details == other.details
    for name in ("silhouette", "stability"):
        assert one.metrics.get(name) == other.metrics.get(name)
    assert one.metrics["acc"] != other.metrics["acc"]


def test_cluster_uses_training_labels_for_count_only():
    rows = toys.dataset()
    one = cluster(toys.Rows(), EvalData(rows))
    rows.train.labels = rows.train.labels.flip(0)
    assert cluster(toys.Rows(), EvalData(rows)).metrics == one.metrics


def test_cluster_without_labels_or_test_split(tmp_path):
    rows = toys.dataset()
    rows.train.labels, rows.test, rows.classes = None, None, ()
    rows.train.names = [f"folder/a, {i}.png" for i in range(240)]
    result = cluster(toys.Rows(), EvalData(rows), seeds=2)
    assert set(result.metrics) == {
        f"{k}{n}" for k in ("", "raw.") for n in ("silhouette", "silhouette_std", "stability", "clusters")
    }
    assert any("estimated" in note for note in result.protocol["notes"])
    assert any("no test split" in note for note in result.protocol["notes"])
    assert set(result.artefacts) == {"assignment.csv", "exemplars.png"}
    for name, artefact in result.artefacts.items():
        artefact.save(tmp_path / name)
    lines = (tmp_path / "assignment.csv").read_text().splitlines()
    assert lines[0] == "split,sample,cluster"
    assert len(lines) == 241
    assert lines[1].startswith('train,"folder/a, 0.png",')


def test_words_of_a_cluster_without_test_samples():
    """The last two of four clusters have none."""
    data = EvalData(shapes(samples=64, test_samples=8, size=16))
    first = Clustering(torch.arange(64) % 4, torch.arange(8) % 2, 4)
    data.raw("test")
    terms = cluster_terms(first, data, "test")
    assert [bool(words) for words in terms.of_groups] == [True, True, False, False]
    rows = term_table(terms, first, data.labels("test"), data).rows
    assert [row[1] for row in rows] == [4, 4, 0, 0]
    assert [row[-1] for row in rows[2:]] == ["", ""]


def test_cluster_saves_sheets(data, tmp_path):
    from PIL import Image

    result = cluster(toys.Rows(), data)
    for name in ("exemplars.png", "table.png"):
        result.artefacts[name].save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200
    assert "cluster" in result.artefacts["exemplars.png"].caption
    grid = result.artefacts["table.png"]
    assert f"{result.metrics['acc']:.1%}" in grid.caption
    assert int(grid.counts.sum()) == 120
    assert torch.equal(grid.counts.argmax(dim=1), torch.arange(3))  # clusters stand in the order of their classes


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "kmean"},
        {"k": 0},
        {"k": "many"},
        {"k": True},
        {"k": 1000},
        {"method": "hdbscan", "k": 10},
        {"starts": 0},
        {"dims": 0},
        {"min_cluster_size": 1},
        {"k_max": 1},
        {"seeds": 0},
    ],
)
def test_cluster_rejects_invalid_settings(data, wrong):
    with pytest.raises(RequestError):
        cluster(toys.Rows(), data, **wrong)


def test_cluster_of_series_with_missing_values(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, 500, generator=g)
    x[3, :, 400:] = float("nan")
    source = ArraySource(x, torch.arange(60) % 2)
    series = Dataset("s", "series", (2, 500), source, source, ("a", "b"), values=Continuous((0.0, 0.0), (1.0, 1.0)))

    class Means(nn.Module):
        dim = 2

        def forward(self, x):
            return x.nanmean(dim=2)

    result = cluster(Means(), EvalData(series))
    result.artefacts["exemplars.png"].save(tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 5000
