"""k-means against scikit-learn's, and invariants of any clustering."""

from __future__ import annotations

import pytest
import torch

from sslcli.errors import DataError, RequestError
from sslcli.evals.fit import kmeans as module
from sslcli.evals.fit.kmeans import kmeans, lloyd


def blobs(n: int, d: int, k: int, spread: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(k, d, generator=g) * 2
    of = torch.arange(n) % k
    return centers[of] + spread * torch.randn(n, d, generator=g), of


def inertia_of(x, centers, assignment):
    return float((x.double() - centers[assignment].double()).square().sum())


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same partition, whatever the clusters are called."""
    pairs = torch.stack([a, b], dim=1).unique(dim=0)
    return len(pairs) == len(a.unique()) == len(b.unique())


@pytest.mark.parametrize(
    ("n", "d", "k", "spread"), [(2000, 8, 5, 2.0), (3000, 40, 30, 2.5), (500, 3, 1, 1.0), (700, 2, 90, 1)]
)
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_kmeans_matches_scikit_learn_from_equal_centers(n, d, k, spread, offset):
    from sklearn.cluster import KMeans

    x, _ = blobs(n, d, 5, spread)
    x = x + offset
    start = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:k]]
    theirs = KMeans(k, init=start.double().numpy(), n_init=1, tol=0).fit(x.double().numpy())
    ours = lloyd(x, start, tol=0)
    assert (ours.assignment == torch.from_numpy(theirs.labels_)).float().mean() > 0.999
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    assert ours.inertia == pytest.approx(inertia_of(x, ours.centers, ours.assignment), rel=1e-4)


def test_kmeans_tolerance_matches_scikit_learn():
    from sklearn.cluster import KMeans

    x, _ = blobs(4000, 10, 8, 3.0)
    start = x[:12]
    theirs = KMeans(12, init=start.double().numpy(), n_init=1, tol=1e-2).fit(x.double().numpy())
    ours = lloyd(x, start, tol=1e-2)
    assert 1 < ours.iterations == theirs.n_iter_ < lloyd(x, start, tol=0).iterations
    assert ours.assignment.tolist() == theirs.labels_.tolist()
    assert lloyd(x, start, max_iter=2, tol=0).iterations == 2


def test_kmeans_bounds_do_not_change_the_result(monkeypatch):
    x, _ = blobs(3000, 12, 6, 3.0)
    start = x[:20]
    with_bounds = lloyd(x, start, tol=0)
    monkeypatch.setattr(module, "SLACK", 1e9)  # every sample is looked at in each iteration
    without = lloyd(x, start, tol=0)
    assert with_bounds.iterations == without.iterations > 10
    assert torch.equal(with_bounds.assignment, without.assignment)
    torch.testing.assert_close(with_bounds.centers, without.centers)


def test_kmeans_recovers_blobs():
    x, of = blobs(1200, 16, 12)
    found = kmeans(x, 12, seed=0)
    assert alike(found.assignment, of)
    assert torch.equal(torch.cdist(x, found.centers).argmin(dim=1), found.assignment)
    assert found.centers.dtype == torch.float32


def test_kmeans_inertia_is_as_low_as_scikit_learn():
    from sklearn.cluster import KMeans

    x, _ = blobs(2000, 20, 40, 1.5)
    ours = [kmeans(x, 25, seed=s).inertia for s in range(8)]
    theirs = [KMeans(25, n_init=1, random_state=s).fit(x.numpy()).inertia_ for s in range(8)]
    assert sum(ours) < 1.01 * sum(theirs)


def test_kmeans_returns_the_best_initialization():
    x, _ = blobs(600, 4, 20, 1.0)
    one, many = kmeans(x, 20, seed=3), kmeans(x, 20, seed=3, n_init=6)
    assert many.inertia < one.inertia


def test_kmeans_depends_on_the_seed_not_on_threads():
    x, _ = blobs(9000, 33, 7, 3.0)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(kmeans(x, 15, seed=5))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other.centers, results[0].centers)
        assert torch.equal(other.assignment, results[0].assignment)
        assert other.inertia == results[0].inertia
    assert not torch.equal(kmeans(x, 15, seed=6).centers, results[0].centers)


def test_kmeans_moves_empty_cluster_to_farthest_sample():
    from sklearn.cluster import KMeans

    x, _ = blobs(300, 3, 3)
    start = torch.cat([x[:2], torch.full((1, 3), 1e3)])  # nobody's nearest
    found = lloyd(x, start)
    assert found.assignment.bincount(minlength=3).min() > 0
    theirs = KMeans(3, init=start.numpy(), n_init=1).fit(x.numpy())
    assert alike(found.assignment, torch.from_numpy(theirs.labels_).long())


def test_kmeans_of_duplicate_samples():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 5.0]]).repeat(40, 1)
    assert kmeans(x, 3, seed=0).inertia == 0
    more = kmeans(x, 7, seed=0)  # more clusters than different samples: some stay empty
    assert more.inertia == 0
    assert (more.assignment.bincount(minlength=7) > 0).sum() == 3
    assert torch.isfinite(more.centers).all()
    assert kmeans(torch.ones(20, 3), 2, seed=0).inertia == 0


@pytest.mark.parametrize("k", [1, 50])
def test_kmeans_with_one_and_with_n_clusters(k):
    x, _ = blobs(50, 5, 3)
    found = kmeans(x, k, seed=0)
    if k == 1:
        torch.testing.assert_close(found.centers[0], x.mean(dim=0))
        assert found.inertia == pytest.approx(
            inertia_of(x, x.mean(dim=0)[None], torch.zeros(50, dtype=torch.int64)), 1e-5
        )
    else:
        assert found.assignment.bincount().tolist() == [1] * 50
        assert found.inertia == pytest.approx(0, abs=1e-9)


def test_kmeans_accepts_half_precision_and_strides():
    x, of = blobs(400, 6, 4)
    wide = torch.cat([x, x], dim=1)[:, ::2].half()
    before = wide.clone()
    assert alike(kmeans(wide, 4, seed=0).assignment, of)
    assert torch.equal(wide, before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_kmeans_rejects_nonfinite_samples(value):
    x, _ = blobs(100, 4, 2)
    x[17, 2] = value
    with pytest.raises(DataError, match="not finite"):
        kmeans(x, 2, seed=0)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 101}, {"n_init": 0}, {"max_iter": 0}, {"tol": -1.0}])
def test_kmeans_rejects_invalid_arguments(wrong):
    x, _ = blobs(100, 4, 2)
    with pytest.raises(RequestError):
        kmeans(x, **({"k": 2, "seed": 0} | wrong))


def slow_spherical(x: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Dhillon & Modha 2001, sample by sample."""
    of = None
    while True:
        nearest = torch.stack([torch.stack([sample @ c for c in centers]).argmax() for sample in x])
        if of is not None and torch.equal(of, nearest):
            return centers, of
        of = nearest
        sums = torch.stack([x[of == c].sum(dim=0) for c in range(len(centers))])
        centers = sums / sums.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("offset", [0.0, 3.0])  # far from the origin, directions are alike
def test_spherical_kmeans_matches_a_direct_computation(offset):
    x, _ = blobs(400, 6, 5, 1.5)
    x = torch.nn.functional.normalize(x + offset, dim=1)
    centers, of = slow_spherical(x.double(), x[:7].double())
    found = lloyd(x, x[:7], tol=0, spherical=True)
    assert torch.equal(found.assignment, of)
    torch.testing.assert_close(found.centers, centers.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.centers.norm(dim=1), torch.ones(7))
    cosines = (x * found.centers[found.assignment]).sum(dim=1)
    assert found.inertia == pytest.approx(float((2 - 2 * cosines).sum()), rel=1e-4)


def test_spherical_kmeans_matches_faiss():
    faiss = pytest.importorskip("faiss")
    x, _ = blobs(3000, 16, 8, 2.0)
    x = torch.nn.functional.normalize(x, dim=1)
    theirs = faiss.Kmeans(16, 8, niter=200, spherical=True, nredo=1, max_points_per_centroid=10_000)
    theirs.train(x.numpy(), init_centroids=x[:8].numpy())
    _, of = theirs.index.search(x.numpy(), 1)
    ours = lloyd(x, x[:8], tol=0, spherical=True)
    assert (ours.assignment == torch.from_numpy(of[:, 0])).float().mean() > 0.999
    torch.testing.assert_close(ours.centers, torch.from_numpy(theirs.centroids), atol=1e-3, rtol=1e-3)


def test_spherical_kmeans_of_opposite_samples_and_zeros():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    found = lloyd(x, torch.tensor([[1.0, 0.0]]), spherical=True)  # the sum points upwards
    torch.testing.assert_close(found.centers, torch.tensor([[0.0, 1.0]]))
    still = lloyd(x[:2], x[:1], spherical=True)  # no direction in common: the centre stays
    torch.testing.assert_close(still.centers, x[:1])
