"""FastSiam, EMP-SSL and Mixed Barlow Twins against reference formulas and other implementations, and their properties."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import load, numbers

from sslcli.backbones.convnet import ConvNet
from sslcli.errors import RequestError
from sslcli.methods.barlow_twins import barlow_terms
from sslcli.methods.emp_ssl import EMPSSL, coding_rate, similarity_to_mean
from sslcli.methods.fastsiam import FastSiam, fastsiam_loss
from sslcli.methods.mixed_barlow import MixedBarlow, mixing_loss, mixture
from sslcli.methods.simsiam import simsiam_loss
from tests.methods.oracles import cos, draws, every_size, images

CASES = load("contrastive")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}")


def small(method, **settings):
    torch.manual_seed(0)
    return method(ConvNet((1, 8, 8), width=4), **settings)


# FastSiam ------------------------------------------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("views", [2, 3, 5])
def test_fastsiam_loss_matches_reference(n, d, views):
    p, z = (torch.stack(draws(n, d, count=2 * views)[i::2]) for i in (0, 1))
    expected = 0.0
    for v in range(views):
        for i in range(n):
            target = sum(z[u, i].numpy() for u in range(views) if u != v) / (views - 1)
            expected -= cos(p[v, i].numpy(), target) / (n * views)
    assert fastsiam_loss(p, z).item() == pytest.approx(expected, rel=1e-10)


def test_fastsiam_of_two_views_is_simsiam():
    p1, p2, z1, z2 = draws(7, 5, count=4)
    loss = fastsiam_loss(torch.stack([p1, p2]), torch.stack([z1, z2]))
    assert loss.item() == pytest.approx(simsiam_loss(p1, p2, z1, z2).item(), rel=1e-12)


def test_fastsiam_detaches_targets():
    p, z = (torch.stack(draws(4, 3, count=3)).requires_grad_() for _ in range(2))
    fastsiam_loss(p, z).backward()
    assert p.grad is not None
    assert p.grad.abs().sum() > 0
    assert z.grad is None


def test_fastsiam_takes_any_number_of_views():
    method = small(FastSiam)
    assert {method(images(4, views=v))["loss"].isfinite().item() for v in (2, 3, 6)} == {True}
    with pytest.raises(RequestError, match=r"at least 2 views, all of kind global; the plan is {global: 1}"):
        method(images(4, views=1))


# EMP-SSL -------------------------------------------------------------------------------------------------------------


@every_case
def test_emp_ssl_terms_match_lightly(case):
    z = F.normalize(torch.stack([numbers(seed, case["n"], case["d"]) for seed in (1, 2, 3)]), dim=2)
    assert coding_rate(z, 0.2).item() == pytest.approx(case["emp_ssl"]["coding_rate"], rel=1e-10)
    assert similarity_to_mean(z).item() == pytest.approx(case["emp_ssl"]["similarity"], rel=1e-10)


@every_size
def test_emp_ssl_terms_match_reference(n, d):
    z = F.normalize(torch.stack(draws(n, d, count=3)), dim=2)
    rate = similarity = 0.0
    for view in z.numpy():
        directions = np.linalg.eigvalsh(np.eye(d) + d / (n * 0.3) * sum(np.outer(row, row) for row in view))
        rate += sum(math.log(value) for value in directions) / 2 / 3
        similarity += sum(cos(view[i], sum(z[u, i].numpy() for u in range(3)) / 3) for i in range(n)) / n / 3
    assert coding_rate(z, 0.3).item() == pytest.approx(rate, rel=1e-10)
    assert similarity_to_mean(z).item() == pytest.approx(similarity, rel=1e-10)


def test_coding_rate_is_least_at_collapse_and_largest_at_orthogonal_rows():
    spread_out = torch.eye(6, dtype=torch.float64)[None]
    assert coding_rate(spread_out, 0.2).item() == pytest.approx(3 * math.log(1 + 1 / 0.2))
    collapsed = torch.eye(6, dtype=torch.float64)[:1].expand(1, 6, 6)
    assert coding_rate(collapsed, 0.2).item() == pytest.approx(0.5 * math.log(1 + 6 / 0.2))
    noise = F.normalize(torch.stack(draws(6, 6, count=1)), dim=2)
    assert coding_rate(collapsed, 0.2) < coding_rate(noise, 0.2) < coding_rate(spread_out, 0.2)


def test_emp_ssl_loss_is_its_weighted_terms():
    out = small(EMPSSL, invariance=7.0)(images(6, views=5))
    assert out["loss"].item() == pytest.approx((-out["coding_rate"] - 7 * out["similarity"]).item(), rel=1e-6)
    assert -1 <= out["similarity"] <= 1
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        small(EMPSSL, epsilon=0)


# Mixed Barlow Twins --------------------------------------------------------------------------------------------------


@every_size
def test_mixing_loss_matches_reference(n, d):
    z1, z2, zm = draws(n, d, count=3)
    share, partner = (
        torch.tensor(0.3, dtype=torch.float64),
        torch.randperm(n, generator=torch.Generator().manual_seed(1)),
    )
    a, b, m = ((z - z.mean(axis=0)) / (z.var(axis=0) + 1e-5) ** 0.5 for z in (z1.numpy(), z2.numpy(), zm.numpy()))
    expected = 0.0
    for view in (a, b):
        for i in range(d):
            for j in range(d):
                of_mixture = sum(m[s, i] * view[s, j] for s in range(n)) / n
                of_first = sum(a[s, i] * view[s, j] for s in range(n)) / n
                of_second = sum(b[partner[s], i] * view[s, j] for s in range(n)) / n
                expected += (of_mixture - 0.3 * of_first - 0.7 * of_second) ** 2
    assert mixing_loss(z1, z2, zm, share, partner).item() == pytest.approx(expected, rel=1e-9, abs=1e-20)


def test_mixtures_are_permutations_and_change_with_the_step():
    like = torch.zeros((), dtype=torch.float64)
    drawn = [mixture(step, 16, like) for step in range(200)]
    assert all(sorted(partner.tolist()) == list(range(16)) for _, partner in drawn)
    shares = torch.stack([share for share, _ in drawn])
    assert 0.45 < shares.mean() < 0.55  # uniform: 1/2 ...
    assert 0.25 < shares.std() < 0.33  # ... and 0.289
    assert mixture(3, 16, like)[1].equal(drawn[3][1])
    assert not drawn[3][1].equal(drawn[4][1])


def test_mixed_barlow_loss_is_barlow_twins_and_mixtures():
    method = small(MixedBarlow, redundancy=0.02, mixing=3.0, scale=0.5)
    batch = images(6)
    seen = []
    method.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    out = method(batch)
    share, partner = mixture(0, 6, batch.views[0])
    assert torch.allclose(seen[2], share * batch.views[0] + (1 - share) * batch.views[1][partner])
    z1, z2 = (method.projector(method.backbone(x)) for x in batch.views)
    terms = barlow_terms(z1, z2)
    expected = terms["invariance"] + 0.02 * (terms["redundancy"] + 3 * out["mixing"])
    assert out["loss"].item() == pytest.approx(0.5 * expected.item(), rel=1e-5)


def test_mixing_loss_of_exact_mixtures_is_small():
    z1, z2, noise = draws(512, 4, count=3)
    share, partner = (
        torch.tensor(0.4, dtype=torch.float64),
        torch.randperm(512, generator=torch.Generator().manual_seed(2)),
    )
    exact = 0.4 * z1 + 0.6 * z2[partner]
    deviation = math.sqrt(0.4**2 + 0.6**2)  # of a mixture, which standardization divides by
    loss = mixing_loss(z1, z2, exact, share, partner)
    assert loss < mixing_loss(z1, z2, noise, share, partner)
    assert loss.item() == pytest.approx(4 * (0.4 / deviation - 0.4) ** 2, rel=0.3)
