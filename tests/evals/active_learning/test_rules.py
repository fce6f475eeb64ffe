"""Orders of samples to label: each rule against a slow independent implementation, and the prefix property of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sslcli.errors import DataError
from sslcli.evals.active_learning import probcover, typiclust
from sslcli.evals.active_learning.kcenter import kcenter
from sslcli.evals.active_learning.margin import uncertain
from sslcli.evals.active_learning.pool import Pool
from sslcli.evals.active_learning.probcover import cover, radius_cosine
from sslcli.evals.active_learning.rules import RULES
from sslcli.evals.active_learning.typiclust import typical
from sslcli.evals.active_learning.ward import ward_merges
from sslcli.evals.fit.kmeans import kmeans
from sslcli.evals.fit.linear_probe import Standardizer
from sslcli.rng import derive


def make_pool(n: int = 120, groups: int = 6, labeled: int = 0, seed: int = 0) -> Pool:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(groups, (n,), generator=g)
    x = torch.randn(groups, 8, generator=g)[y] + 0.4 * torch.randn(n, 8, generator=g)
    labels = torch.full((n,), -1)
    labels[:labeled] = y[:labeled]
    return Pool(x, labels, tuple(f"c{i}" for i in range(groups)), groups)


def distances(pool: Pool) -> np.ndarray:
    z = pool.features.double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return np.sqrt(np.clip(2 - 2 * z @ z.T, 0, None))


def indices(picks: list) -> list[int]:
    return [pick.index for pick in picks]


@pytest.mark.parametrize("labeled", [0, 25])
@pytest.mark.parametrize("by", RULES)
def test_first_picks_do_not_depend_on_their_number(by, labeled, monkeypatch):
    monkeypatch.setattr(typiclust, "CLUSTERS", 20)
    pool = make_pool(labeled=labeled or (12 if by == "uncertain" else 0))
    free = len(pool) - len(pool.labeled)
    everything = RULES[by](pool, free, 3)
    assert sorted(indices(everything)) == torch.nonzero(pool.labels < 0).flatten().tolist()
    for n in (1, 7, 30):
        assert RULES[by](pool, n, 3) == everything[:n]


@pytest.mark.parametrize("labeled", [0, 9])
def test_typical_follows_the_hierarchy_of_ward(labeled):
    """With as many fine clusters as samples the hierarchy is Ward's on the samples, which SciPy has."""
    pool = make_pool(labeled=labeled)
    d, n = distances(pool), len(pool)

    def spread(i: int, members: list[int]) -> float:  # to the nearest half of the cluster, 20 at most
        near = sorted(d[i, j] for j in members if j != i)
        return float(np.mean(near[: max(1, min(20, len(members) // 2))]))

    clusters = {i: ([i], i) for i in range(n)}  # members, proposed sample
    tree = linkage(pool.unit.double().numpy(), "ward")
    for step, (a, b) in enumerate(tree[:, :2].astype(int)):
        members = clusters[a][0] + clusters[b][0]
        two = sorted([clusters[a][1], clusters[b][1]])
        clusters[n + step] = members, min(two, key=lambda i: round(spread(i, members), 6))
    expected: list[int] = []
    for c in [2 * n - 2, *tree[::-1, :2].astype(int).flatten()]:
        members, proposed = clusters[c]
        if not set(members) & set(range(labeled)) and proposed not in expected:
            expected.append(proposed)
    picks = typical(pool, 40, 0)
    assert indices(picks) == expected[:40]
    whole = typical(make_pool(), 1, 0)[0]
    assert whole.reason.startswith(f"typical of a cluster of {n}: distance {spread(whole.index, list(range(n))):.3f} ")


def test_typical_of_the_finest_clusters():
    pool = make_pool(n=600)
    d = distances(pool)
    fine = typiclust._fine_clusters(pool.unit, 0)
    for cluster, size in enumerate(fine.sizes.tolist()):
        members = torch.nonzero(fine.assignment == cluster).flatten().tolist()
        for i in members:
            near = sorted(d[i, j] for j in members if j != i)[: max(1, min(20, size // 2))]
            assert float(fine.spread[i]) == pytest.approx(np.mean(near) if near else np.inf, abs=1e-3)


def test_ward_of_weighted_points_is_that_of_repeated_points():
    g = torch.Generator().manual_seed(1)
    points, weights = torch.randn(12, 3, generator=g), torch.randint(1, 5, (12,), generator=g)
    tree = linkage(points.double().repeat_interleave(weights, dim=0).numpy(), "ward")
    merges = ward_merges(points, weights)
    for k in range(1, 12):
        cluster = torch.arange(12)
        for a, b in merges[: 12 - k]:
            cluster[cluster == b] = a
        expected = fcluster(tree, k, "maxclust")[weights.cumsum(0).numpy() - 1]
        assert same_partition(cluster.numpy(), expected), k


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("labeled", [0, 9])
def test_cover_takes_the_largest_uncovered_ball(labeled):
    pool = make_pool(n=700, labeled=labeled)  # more than one block
    d = distances(pool)
    pseudo = kmeans(pool.unit, 6, seed=derive(5, "cover"), n_init=3).assignment.numpy()
    radii = [r for r in np.linspace(0.3, 1.2, 91) if purity(d, pseudo, r) >= probcover.PURITY]
    cosine = radius_cosine(pool, 5)
    radius = (2 - 2 * cosine) ** 0.5
    assert abs(radius - max(radii)) < 0.011

    graph = d < radius
    np.fill_diagonal(graph, True)
    open_ = ~graph[:labeled].any(axis=0)
    expected: list[int] = []
    for _ in range(30):
        gains = (graph & open_).sum(axis=1)
        i = int(gains.argmax())
        if gains[i] < 2:
            break
        expected.append(i)
        open_ &= ~graph[i]
    assert len(expected) > 20
    assert indices(cover(pool, len(expected), 5)) == expected


def purity(d: np.ndarray, pseudo: np.ndarray, radius: float) -> float:
    return float(np.mean([(pseudo[row < radius] == p).all() for row, p in zip(d, pseudo, strict=True)]))


def test_cover_goes_on_with_the_farthest_sample():
    pool = make_pool(labeled=5)
    picks = cover(pool, 100, 0)
    first = next(i for i, pick in enumerate(picks) if "covers" not in pick.reason)
    assert 0 < first < 100
    assert indices(picks[first:]) == farthest(distances(pool), [*range(5), *indices(picks[:first])], 100 - first)


@pytest.mark.parametrize("labeled", [0, 9])
def test_kcenter_takes_the_farthest_sample(labeled):
    pool = make_pool(labeled=labeled)
    picks = indices(kcenter(pool, 20, 2))
    start = [*range(labeled)] or picks[:1]
    assert picks[0 if labeled else 1 :] == farthest(distances(pool), start, 20 if labeled else 19)


def farthest(d: np.ndarray, centers: list[int], n: int) -> list[int]:
    chosen = list(centers)
    for _ in range(n):
        nearest = d[:, chosen].min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen[len(centers) :]


def test_uncertain_takes_the_smallest_margin_of_a_logistic_regression():
    pool = make_pool(labeled=40)
    picks = uncertain(pool, 10, 0)
    x = Standardizer(pool.features)(pool.features, torch.arange(len(pool))).numpy()
    margins = []
    for C in (1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000):  # the probe chooses one of the grid
        model = LogisticRegression(C=C, max_iter=10_000, tol=1e-8).fit(x[:40], pool.labels[:40].numpy())
        top = np.sort(model.predict_proba(x), axis=1)
        margin = top[:, -1] - top[:, -2]
        margin[:40] = np.inf
        margins.append(margin.argsort(kind="stable")[:10].tolist())
    assert indices(picks) in margins


def test_uncertain_without_labels_is_an_error():
    with pytest.raises(DataError, match="2 classes"):
        uncertain(make_pool(), 3, 0)


def test_copies_of_samples_are_no_obstacle():
    x = torch.zeros(30, 4)
    x[:, 0] = 1.0
    x[20:] = torch.eye(4)[1]
    pool = Pool(x, torch.full((30,), -1))
    for by in ("typical", "cover", "kcenter"):
        found: Tensor = torch.tensor(indices(RULES[by](pool, 30, 0)))
        assert sorted(found.tolist()) == list(range(30)), by
        assert (found[:2] >= 20).sum() == 1, by
