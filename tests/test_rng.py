"""Counter-based random numbers: distribution, independence, and stored values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sslcli.rng import Draw, derive, order

N = 20_000


def draw(n: int = N, seed: int = 0, epoch: int = 0, view: int = 0) -> Draw:
    return Draw(seed, epoch, torch.arange(n), view)


def ks_uniform(x: Tensor) -> float:
    """The Kolmogorov-Smirnov distance from the uniform distribution, times sqrt(n): above 1.95 once in 1000 times."""
    x = x.flatten().double().sort().values
    n = len(x)
    steps = torch.arange(n, dtype=torch.float64)
    gap = torch.maximum(((steps + 1) / n - x).abs(), (x - steps / n).abs())
    return float(gap.max()) * math.sqrt(n)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation times sqrt(n): standard normal for independent numbers."""
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1]) * math.sqrt(len(a))


# Golden values: if one of these fails, every run's random choices have changed. That is never a detail.


def test_golden_values():
    d = Draw(7, 3, torch.tensor([0, 1, 12345678901]), 2)
    assert derive(0, 1, "x") == 1687861714452564564
    assert d.bits("crop", 2).tolist() == [
        [-4139683219777963505, -2086149583367271855],
        [4987920943920485925, 3889812344950277375],
        [-7246954276124080031, 1928849557029604761],
    ]
    assert d.uniform("crop", 2).tolist() == [
        [0.7755873203277588, 0.8869096040725708],
        [0.2703956961631775, 0.21086710691452026],
        [0.6071417927742004, 0.10456311702728271],
    ]
    assert d.normal("n", 3).tolist() == [
        [1.6302353143692017, 0.6429969072341919, -0.8280919194221497],
        [0.09460896253585815, -0.9094330072402954, 0.9385861158370972],
        [-1.8921704292297363, -0.26462727785110474, 0.9950867891311646],
    ]
    assert d.integers("i", 1000).tolist() == [993, 21, 42]
    assert d.permutation("p", 6).tolist() == [[5, 2, 4, 1, 0, 3], [2, 3, 5, 0, 4, 1], [1, 5, 4, 2, 0, 3]]


def test_golden_order():
    assert order(0, 0, 10).tolist() == [6, 3, 5, 4, 2, 7, 0, 9, 8, 1]
    assert order(5, 2, 10).tolist() == [9, 8, 1, 7, 5, 2, 3, 4, 0, 6]


def test_matches_splitmix64_in_python_integers():
    """The published algorithm in Python integers."""

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    key = derive(3, 1, 2, "q")
    for sample in (0, 1, 999):
        stream = mix(mix((sample * golden + key) & (2**64 - 1)))
        want = [mix((stream + k * golden) & (2**64 - 1)) for k in (1, 2, 3)]
        got = [v % 2**64 for v in Draw(3, 1, torch.tensor([sample]), 2).bits("q", 3)[0].tolist()]
        assert got == want


# Uniform


def test_uniform_is_uniform():
    u = draw().uniform("a", 2)
    assert u.dtype == torch.float32
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert ks_uniform(u[:, 0]) < 1.95
    assert ks_uniform(u[:, 1]) < 1.95
    assert ks_uniform(Draw(0, 0, torch.tensor([5])).uniform("a", N)) < 1.95  # along one sample's stream too


def test_uniform_without_pattern_for_low_ids():
    """Adjacent ids, as a counter hash might show them: differences of neighbors are triangular, not constant."""
    u = draw().uniform("a").double()
    assert len(u.unique()) > 0.99 * N
    step = (u[1:] - u[:-1]) % 1.0
    assert ks_uniform(step) < 1.95


def test_uniform_bounds():
    u = draw().uniform("a", low=-2.0, high=3.0)
    assert -2 <= float(u.min()) < -1.99
    assert 2.99 < float(u.max()) <= 3
    assert abs(float(u.mean()) - 0.5) < 4 * 5 / math.sqrt(12 * N)


@pytest.mark.parametrize(
    "other",
    [
        draw(seed=1).uniform("a"),
        draw(epoch=1).uniform("a"),
        draw(view=1).uniform("a"),
        draw().uniform("b"),
        draw().uniform("a", 2)[:, 1],
        draw(N + 1).uniform("a")[1:],
    ],
    ids=["seed", "epoch", "view", "purpose", "column", "next id"],
)
def test_independent(other):
    u = draw().uniform("a")
    assert not torch.equal(u, other)
    assert abs(correlation(u, other)) < 4
    assert abs(correlation((u - 0.5).abs(), (other - 0.5).abs())) < 4
    assert ks_uniform((u.double() + other.double()) % 1.0) < 1.95


def test_numbers_depend_on_every_key():
    a = draw(64).uniform("a", 3)
    assert torch.equal(a, draw(64).uniform("a", 3))
    for changed in (draw(64, seed=1), draw(64, epoch=1), draw(64, view=1), draw(64).of_view(-1)):
        assert not (a == changed.uniform("a", 3)).any()
    assert not (a == draw(64).uniform("a ", 3)).any()


def test_numbers_independent_of_batch():
    whole = draw(257)
    pick = torch.tensor([3, 200, 3, 256])
    for name in ("uniform", "normal"):
        full = getattr(whole, name)("a", 5)
        assert torch.equal(getattr(whole.rows(pick), name)("a", 5), full[pick])
        assert torch.equal(getattr(whole.rows(slice(10, 11)), name)("a", 5), full[10:11])
    assert torch.equal(whole.rows(pick).permutation("p", 9), whole.permutation("p", 9)[pick])
    assert torch.equal(whole.rows(pick).integers("i", 9, 2), whole.integers("i", 9, 2)[pick])


def test_first_columns_do_not_depend_on_the_count():
    d = draw(10)
    assert torch.equal(d.uniform("a", 7)[:, :3], d.uniform("a", 3))


def test_uniforms_equal_uniform():
    d = draw(33, view=4)
    wanted = {"a": 1, "b": 10, "c": 3}
    got = d.uniforms(wanted)
    assert list(got) == list(wanted)
    for purpose, count in wanted.items():
        assert torch.equal(got[purpose], d.uniform(purpose, count))
    assert d.uniforms({}) == {}


def test_shapes_and_empty_batch():
    d = draw(4)
    assert d.uniform("a").shape == (4,)
    assert d.uniform("a", 2, 3).shape == (4, 2, 3)
    assert torch.equal(d.uniform("a", 2, 3).flatten(1), d.uniform("a", 6))
    assert d.normal("a", 5).shape == (4, 5)
    none = draw(0)
    assert none.uniform("a", 2).shape == none.normal("a", 2).shape == (0, 2)
    assert none.uniforms({"a": 2})["a"].shape == (0, 2)


def test_chance():
    on = draw().chance("p", 0.3)
    assert on.dtype == torch.bool
    assert abs(float(on.double().mean()) - 0.3) < 4 * math.sqrt(0.21 / N)
    assert not draw(100).chance("p", 0.0).any()
    assert draw(100).chance("p", 1.0).all()


# Normal


def test_normal_moments_and_shape():
    x = draw(5_000).normal("n", 5).double()
    n = x.numel()
    assert abs(float(x.mean())) < 4 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((x**3).mean())) < 4 * math.sqrt(15 / n)
    assert abs(float((x**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    assert ks_uniform(0.5 * (1 + torch.erf(x / math.sqrt(2)))) < 1.95
    for i in range(5):  # pairs come from one radius and angle; they must not show it
        for j in range(i):
            assert abs(correlation(x[:, i], x[:, j])) < 4
            assert abs(correlation(x[:, i] ** 2, x[:, j] ** 2)) < 4


# Integers, permutations


def test_integers_are_unbiased():
    for high in (2, 7, 10):
        counts = torch.bincount(draw().integers("i", high), minlength=high).double()
        assert len(counts) == high
        chi2 = float(((counts - N / high) ** 2 / (N / high)).sum())
        assert chi2 < (high - 1) + 5 * math.sqrt(2 * (high - 1))
    assert int(draw().integers("i", 1).max()) == 0


def test_permutation():
    p = draw(6_000).permutation("p", 4)
    assert torch.equal(p.sort(1).values, torch.arange(4).expand(6_000, 4))
    codes = (p * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.unique(codes, return_counts=True)[1].double()
    assert len(counts) == 24  # all of 4! occur
    assert float(((counts - 250) ** 2 / 250).sum()) < 23 + 5 * math.sqrt(46)


def test_order():
    a = order(0, 0, 1000)
    assert torch.equal(a.sort().values, torch.arange(1000))
    assert torch.equal(a, order(0, 0, 1000))
    for other in (order(1, 0, 1000), order(0, 1, 1000)):
        assert abs(correlation(a.double(), other.double())) < 4
        assert int((a == other).sum()) < 10  # two random permutations share one position, on average
    assert order(0, 0, 0).tolist() == []
    assert order(0, 0, 1).tolist() == [0]


def test_derive():
    assert derive(1, "a") == derive(np.int64(1), "a")
    assert len({derive(1), derive("1"), derive(1, 1), derive("1", "1"), derive("a", "b"), derive("ab")}) == 6
    assert all(0 <= derive(i) < 2**63 for i in range(50))


def test_numbers_independent_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = draw().normal("n", 3), draw().uniform("u", 3)
        torch.set_num_threads(2)
        two = draw().normal("n", 3), draw().uniform("u", 3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
