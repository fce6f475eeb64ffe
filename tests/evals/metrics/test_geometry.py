"""Metrics of features against closed forms and independent implementations."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from sslcli.evals.metrics.geometry import (
    alignment,
    alpha_req,
    effective_rank,
    learnability,
    lidar,
    nearest,
    rankme,
    two_nn,
    uniformity,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """(n, d) float64 with orthonormal columns that sum to 0."""
    return torch.linalg.qr(torch.cat([torch.ones(n, 1), normal(n, d, seed=seed)], dim=1).double()).Q[:, 1:]


# ---------------------------------------------------------------------------------------------------- rank and decay


def test_rankme_of_known_cases():
    assert rankme(torch.eye(16)) == pytest.approx(16, rel=1e-4)
    assert rankme(torch.eye(16).repeat(10, 1)) == pytest.approx(16, rel=1e-4)
    assert rankme(torch.ones(50, 1) @ normal(1, 8)) == pytest.approx(1, abs=2e-3)
    assert rankme(torch.zeros(5, 3)) == 1.0
    two = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert rankme(two) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)
    x = normal(300, 20)
    s = torch.linalg.svdvals(x.double())
    s = s / s.sum() + 1e-7
    assert rankme(x) == pytest.approx(float((-(s * s.log()).sum()).exp()), rel=1e-9)
    rotation = torch.linalg.qr(normal(20, 20)).Q
    assert rankme(7 * x @ rotation) == pytest.approx(rankme(x), rel=1e-5)
    assert rankme(x[:10]) <= 10 + 1e-4  # fewer samples than features


def test_rankme_of_an_isotropic_gaussian_is_its_dimension():
    assert rankme(normal(20_000, 24)) == pytest.approx(24, rel=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_of_a_power_law(alpha):
    values = torch.arange(1, 31, dtype=torch.float64) ** -alpha
    assert alpha_req(orthonormal(200, 30) * values.sqrt() + 3.0) == pytest.approx(alpha, rel=1e-6)
    assert alpha_req(torch.zeros(5, 3)) == float("inf")


# ----------------------------------------------------------------------------------------------------------- LiDAR


def grouped(means: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """(n, q, d): views that lie around their sample's mean; `noise` (q, d) sums to zero over the views."""
    return means[:, None] + noise


def test_lidar_of_a_synthetic_structure():
    """Means along three axes, noise alike in all: three directions tell samples apart, at equal strength."""
    n, q, d = 40, 6, 10
    means = torch.zeros(n, d, dtype=torch.float64)
    means[:, :3] = orthonormal(n, 3)
    noise = torch.cat([orthonormal(q, 5), torch.zeros(q, 5)], dim=1)
    assert lidar(grouped(means, noise)) == pytest.approx(3, rel=1e-3)
    # noise that drowns the third direction: its share is (1/26) / (1/1 + 1/1 + 1/26), with delta making up the rest
    noise = torch.zeros(q, d, dtype=torch.float64)
    noise[:, :3] = orthonormal(q, 3) * torch.tensor([1.0, 1.0, 5.0])
    within = torch.tensor([1.0, 1.0, 25.0], dtype=torch.float64) / (q - 1) + 1e-4
    shares = (1 / within) / (1 / within).sum()
    assert lidar(grouped(means, noise)) == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-4)


def test_lidar_is_one_for_at_most_one_direction():
    assert lidar(torch.ones(10, 4, 6)) == 1.0
    means = torch.zeros(10, 6)
    means[:, 0] = torch.arange(10.0)
    assert lidar(grouped(means, 0.1 * normal(4, 6))) == pytest.approx(1, abs=0.01)
    assert lidar(normal(12, 5, 30)) <= 11 + 1e-3  # no more directions than samples less one


def test_lidar_is_equal_in_blocks(monkeypatch):
    """Written out, with numpy's own covariances."""
    import numpy as np

    z = normal(3000, 5, 4) + 2 * normal(3000, 1, 4, seed=1)  # more than fit in one part
    within = np.mean([np.cov(one.T.numpy()) for one in z.double()], axis=0) + 1e-4 * np.eye(4)
    between = np.cov(z.double().mean(dim=1).T.numpy())
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    p = values / values.sum()
    assert lidar(z) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-5)


def test_lidar_matches_stable_pretraining():
    module = pytest.importorskip("stable_pretraining.callbacks.lidar", exc_type=ImportError)
    theirs = module.LiDAR.__new__(module.LiDAR)
    theirs.n_classes, theirs.samples_per_class, theirs.delta, theirs.epsilon, theirs.name = 50, 8, 1e-4, 1e-8, "lidar"
    z = (normal(50, 8, 16) * torch.linspace(0.1, 2, 16) + normal(50, 1, 16, seed=1)).double()
    monkey = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # theirs makes the identity in the default type
    try:
        found = theirs._compute_lidar(z.flatten(0, 1))["lidar"]
    finally:
        torch.set_default_dtype(monkey)
    assert lidar(z) == pytest.approx(found, rel=1e-5)


# ------------------------------------------------------------------------------------------ alignment and uniformity


def test_alignment_of_known_case():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[0.0, 3.0], [0.0, 5.0]])
    assert alignment(a, b) == pytest.approx((2 + 0) / 2)  # lengths do not matter; squares of sqrt(2) and 0
    assert alignment(a, b, alpha=1) == pytest.approx(math.sqrt(2) / 2)
    assert alignment(a, -a) == pytest.approx(4)


def test_uniformity_of_known_cases_and_closed_form():
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    pairs = (4 * math.exp(-2 * 2) + 2 * math.exp(-2 * 4)) / 6
    assert uniformity(square) == pytest.approx(math.log(pairs))
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0)
    # uniform on the circle: exp(-2t) I_0(2t), the mean of exp(-2t (1 - cos))
    angle = torch.arange(4001, dtype=torch.float64) * 2 * math.pi / 4001
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    bessel = float(torch.special.i0(torch.tensor(4.0, dtype=torch.float64)))
    expected = math.log((4001 * math.exp(-4) * bessel - 1) / 4000)  # without the pairs of a point with itself
    assert uniformity(circle) == pytest.approx(expected, rel=1e-6)


def test_uniformity_matches_pdist(monkeypatch):
    """As the authors' code has it: torch.pdist, squared, times -t, exp, mean, log."""
    x = torch.nn.functional.normalize(normal(700, 12).double(), dim=1)
    assert uniformity(x) == pytest.approx(float(torch.pdist(x).pow(2).mul(-2).exp().mean().log()), rel=1e-9)


# ------------------------------------------------------------------------------------------- neighbours and clusters


@pytest.mark.parametrize("d", [1, 2, 5])
def test_two_nn_returns_the_dimension_of_a_subspace(d):
    x = torch.rand(4000, d, generator=torch.Generator().manual_seed(d)) @ normal(d, 20, seed=9)
    assert two_nn(x) == pytest.approx(d, rel=0.08)
    assert two_nn(2**-10 * x) == pytest.approx(two_nn(x), rel=1e-6)


def test_two_nn_ignores_duplicates():
    x = normal(500, 3)
    alone = two_nn(x)
    assert two_nn(torch.cat([x, torch.zeros(40, 3) + 50])) == pytest.approx(alone, rel=0.05)
    assert math.isnan(two_nn(torch.zeros(50, 3)))
    assert math.isnan(two_nn(x[:8]))


def test_two_nn_matches_scikit_dimension():
    skdim = pytest.importorskip("skdim", exc_type=ImportError)
    for d in (5, 40):
        x = normal(600, d)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert two_nn(x) == pytest.approx(skdim.id.TwoNN().fit(x.double().numpy()).dimension_, rel=1e-6)


def test_nearest_distances_match_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    x = normal(600, 7) + 100  # far from the origin: float32 products alone would be rough
    theirs = NearestNeighbors(n_neighbors=3).fit(x.double().numpy()).kneighbors()[0]
    assert torch.allclose(nearest(x, 3).sqrt(), torch.from_numpy(theirs), rtol=1e-5)


def test_learnability_of_clusters_and_noise():
    centers = 10 * torch.eye(8)
    apart = torch.cat([c + 0.1 * normal(60, 8, seed=i) for i, c in enumerate(centers)])
    assert learnability(apart, clusters=8) == 1.0
    assert learnability(apart, seed=3) == learnability(apart, seed=3)
    assert learnability(5 * apart, seed=3) == learnability(apart, seed=3)  # cosines
    noise = learnability(normal(480, 64))
    assert 1 / 22 < noise < 0.5  # 22 clusters; a neighbour in noise knows little


def test_effective_rank_of_equal_values():
    assert effective_rank(torch.ones(7)) == pytest.approx(7, rel=1e-4)
