"""Losses that regularize the distribution of embeddings: LeJEPA, VISReg, W-MSE."""

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
from sslcli.methods.lejepa import LeJEPA, sigreg
from sslcli.methods.visreg import normal_quantiles, visreg_terms
from sslcli.methods.w_mse import whiten, whitening_mse
from sslcli.nn.projections import invariance_loss, random_directions
from tests.methods.oracles import cos, draws, images

CASES = load("isotropic")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}")


def views(case) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.stack([numbers(s, case["n"], case["d"]) for s in (1, 2, 3, 4, 5)])
    return z, F.normalize(numbers(9, case["d"], 7), dim=0)


# slices --------------------------------------------------------------------------------------------------------------


def test_directions_are_unit_functions_of_step():
    like = torch.zeros(1, dtype=torch.float64)
    one = random_directions(3, 5, 40, like)
    assert torch.allclose(one.norm(dim=0), torch.ones(40, dtype=torch.float64), atol=1e-6)
    torch.manual_seed(1)
    assert torch.equal(one, random_directions(3, 5, 40, like))
    assert not torch.allclose(one, random_directions(4, 5, 40, like))


# LeJEPA --------------------------------------------------------------------------------------------------------------


@every_case
def test_lejepa_matches_lightly(case):
    z, slices = views(case)
    assert sigreg(z[:2], slices).item() == pytest.approx(case["sigreg"], rel=1e-6)  # their grid is float32
    loss = 0.9 * invariance_loss(z, 2) + 0.1 * sigreg(z, slices)
    assert loss.item() == pytest.approx(case["lejepa"], rel=1e-6)


def test_sigreg_matches_reference():
    z, slices = draws(6, 3, count=1)[0][None], F.normalize(draws(3, 4)[0], dim=0)
    knots = np.linspace(0, 3, 17)
    total = 0.0
    for m in range(4):
        u = (z[0] @ slices[:, m]).numpy()
        heights = []
        for t in knots:
            real, imaginary = np.cos(t * u).mean(), np.sin(t * u).mean()
            heights.append(((real - math.exp(-t * t / 2)) ** 2 + imaginary**2) * math.exp(-t * t / 2))
        total += 2 * np.trapezoid(heights, knots)  # the integrand is even
    assert sigreg(z, slices).item() == pytest.approx(6 * total / 4, rel=1e-10)


def test_sigreg_is_minimal_for_gaussian():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1, 4000, 4, generator=generator, dtype=torch.float64)
    slices = random_directions(0, 4, 32, normal)
    collapsed, wide, flat = torch.zeros_like(normal), 3 * normal, normal * torch.tensor([1.0, 1.0, 1.0, 0.0])
    least = sigreg(normal, slices)
    assert all(sigreg(other, slices) > 20 * least for other in (collapsed, wide, flat))


def test_lejepa_slices_change_with_step():
    method, data = LeJEPA(ConvNet((1, 8, 8), width=4), proj_dim=8, slices=4), images(6)
    first = method(data)["sigreg"]
    again = method(data)["sigreg"]
    method.after_step(0.1)
    assert first == again
    assert method(data)["sigreg"] != first


# VISReg --------------------------------------------------------------------------------------------------------------


@every_case
def test_visreg_terms_match_lightly(case):
    z, slices = views(case)
    terms = visreg_terms(z, 2, slices)
    assert terms["centre"].item() == pytest.approx(case["visreg_centre"], rel=1e-9)
    assert terms["scale"].item() == pytest.approx(case["visreg_scale"], rel=1e-9)
    agree = (case["visreg"] - 0.6 * (case["visreg_shape"] + case["visreg_scale"] + case["visreg_centre"])) / 0.4
    assert terms["invariance"].item() == pytest.approx(agree, rel=1e-6)
    # Theirs compares with quantiles that are not scaled: <s - q/r, s - q/r> from <s - q, s - q>, where <s, s> is known
    n = case["n"]
    plain = torch.special.ndtri(torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))
    square, ratio = plain.square().mean(), plain.square().mean().sqrt()
    standard = (z - z.mean(dim=1, keepdim=True)) / (z.std(dim=1, unbiased=False, keepdim=True) + 1e-4)
    own = (standard @ slices).square().mean()
    cross = (own + square - case["visreg_shape"]) / 2
    assert terms["shape"].item() == pytest.approx((own + 1 - 2 * cross / ratio).item(), rel=1e-5)


def test_visreg_quantiles_have_unit_standard_deviation():
    for n in (2, 6, 100):
        q = normal_quantiles(n)
        assert q.square().mean().item() == pytest.approx(1.0)
        assert torch.allclose(q, -q.flip(0), atol=1e-12)
    from scipy.stats import norm

    wanted = norm.ppf(np.arange(1, 7) / 7)
    assert np.allclose(normal_quantiles(6).numpy() / normal_quantiles(6)[-1].item(), wanted / wanted[-1])


def test_visreg_shape_ignores_scale():
    z, slices = draws(1, 12, 4, count=1)[0], F.normalize(draws(4, 9)[0], dim=0)
    for factor in (0.1, 1.0, 7.0):
        assert visreg_terms(factor * z, 1, slices)["shape"].item() == pytest.approx(
            visreg_terms(z, 1, slices)["shape"].item(), rel=5e-3
        )
    flat = torch.zeros(1, 5, 4, dtype=torch.float64)
    assert visreg_terms(flat, 1, slices)["scale"].item() == pytest.approx(1.0, abs=1e-5), "collapse costs"


# W-MSE ---------------------------------------------------------------------------------------------------------------


def test_w_mse_matches_lightly():
    (case,) = (c for c in CASES if "w_mse" in c)
    z, _ = views(case)
    loss = whitening_mse(z[0], z[1], torch.arange(case["n"]), case["n"] // 2, 1e-12)
    assert loss.item() == pytest.approx(case["w_mse"], rel=1e-6)


def test_whitened_embeddings_have_identity_covariance():
    z = draws(50, 4)[0] @ draws(4, 4)[0] + 3
    white = whiten(z, 1e-12)
    assert torch.allclose(white.mean(dim=0), torch.zeros(4, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(white.T @ white / 49, torch.eye(4, dtype=torch.float64), atol=1e-6)


def test_whitening_mse_matches_reference():
    z1, z2 = draws(12, 3)
    order = torch.tensor([3, 1, 7, 11, 0, 2, 9, 4, 6, 10, 5, 8])
    total = 0.0
    for part in (order[:6], order[6:]):
        sides = []
        for z in (z1, z2):
            own = z[part].numpy()
            covariance = np.cov(own.T)
            ridge = 0.01 * covariance.diagonal().mean()
            factor = np.linalg.cholesky(covariance + ridge * np.eye(3))
            sides.append((own - own.mean(axis=0)) @ np.linalg.inv(factor).T)
        total += sum(2 - 2 * cos(a, b) for a, b in zip(*sides, strict=True))
    assert whitening_mse(z1, z2, order, 6, 0.01).item() == pytest.approx(total / 12, rel=1e-9)


def test_whitening_few_samples_is_finite():
    z = draws(4, 9)[0].float()
    assert torch.isfinite(whiten(z, 1e-3)).all()
    assert torch.isfinite(whiten(torch.ones(4, 9), 1e-3)).all(), "a collapsed batch"
