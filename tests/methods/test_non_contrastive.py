"""Losses without negatives against reference formulas and other implementations, and their properties."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import load, numbers

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.barlow_twins import BarlowTwins, barlow_terms
from sslcli.methods.lejepa import LeJEPA
from sslcli.methods.tico import TiCo, second_moment, tico_terms
from sslcli.methods.visreg import VISReg, normal_quantiles, visreg_terms
from tests.methods.oracles import cos, draws, every_size, images

CASES = load("contrastive")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}")


# Barlow Twins --------------------------------------------------------------------------------------------------------


@every_case
def test_barlow_matches_lightly(case):
    terms = barlow_terms(numbers(1, case["n"], case["d"]), numbers(2, case["n"], case["d"]))
    loss = terms["invariance"] + 0.0051 * terms["redundancy"]
    assert loss.item() == pytest.approx(case["barlow"], rel=1e-10)


@every_size
def test_barlow_terms_matches_reference(n, d):
    z1, z2 = (z.numpy() for z in draws(n, d))
    a, b = ((z - z.mean(axis=0)) / (z.var(axis=0) + 1e-5) ** 0.5 for z in (z1, z2))
    invariance = redundancy = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[s, i] * b[s, j] for s in range(n)) / n
            if i == j:
                invariance += (1 - c) ** 2
            else:
                redundancy += c**2
    terms = barlow_terms(*draws(n, d))
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-9, abs=1e-12)
    assert terms["redundancy"].item() == pytest.approx(redundancy, rel=1e-9)


def test_barlow_properties():
    z1, z2 = draws(40, 3)
    terms = barlow_terms(z1, z2)
    again = barlow_terms(5 * z1 + 3, 0.2 * z2 - 1)  # scale and shift of a dimension mean (nearly) nothing
    assert again["redundancy"].item() == pytest.approx(terms["redundancy"].item(), rel=1e-3)
    assert barlow_terms(z1, z1)["invariance"].item() < 1e-8
    one = torch.ones(5, 4, dtype=torch.float64)
    assert barlow_terms(one, one)["invariance"].item() == pytest.approx(4.0), "collapse costs one a dimension"
    method = BarlowTwins(ConvNet((1, 8, 8), width=4), redundancy=0.3, scale=0.7)
    out = method(images(6))
    weighed = 0.7 * (out["invariance"] + 0.3 * out["redundancy"])
    assert out["loss"].item() == pytest.approx(weighed.item(), rel=1e-6)


# TiCo ----------------------------------------------------------------------------------------------------------------


@every_case
def test_tico_matches_lightly_over_three_steps(case):
    n, d = case["n"], case["d"]
    c = torch.zeros(d, d, dtype=torch.float64)
    for step, expected in enumerate(case["tico"]):
        z1, z2 = numbers(1 + 2 * step, n, d), numbers(2 + 2 * step, n, d)
        z1 = F.normalize(z1, dim=1)
        c = 0.9 * c + 0.1 * second_moment(z1, z1)
        terms = tico_terms(z1, z2, c)
        assert (terms["invariance"] + 20 * terms["covariance"]).item() == pytest.approx(expected, rel=1e-10)


@every_size
def test_tico_terms_matches_reference(n, d):
    z, target = draws(n, d)
    z = F.normalize(z, dim=1)
    c = second_moment(z, z)
    agree = sum(cos(z[i].numpy(), target[i].numpy()) for i in range(n)) / n
    crowded = sum(float(z[i] @ z[j]) ** 2 for i in range(n) for j in range(n)) / n**2  # z^T C z, C the mean of z z^T
    terms = tico_terms(z, target, c)
    assert terms["invariance"].item() == pytest.approx(1 - agree, rel=1e-10)
    assert terms["covariance"].item() == pytest.approx(crowded, rel=1e-10)


def test_tico_covariance_updates_after_step_by_all_micro_batches():
    torch.manual_seed(0)
    method = TiCo(ConvNet((1, 8, 8), width=4), beta=0.6).eval()  # eval: batch norm does not move under our hands
    first, second = images(4), images(4, epoch=1, shape=(1, 8, 8))
    second.views = [v + 1 for v in second.views]
    moments = []
    for data in (first, second):
        z = [F.normalize(method.projector(method.backbone(x)), dim=1) for x in data.views]
        moments.append(second_moment(*z))
    method.train()
    for module in method.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    for data in (first, second):
        method(data)
    assert not method.covariance.any()
    method.after_step(0.0)
    assert torch.allclose(method.covariance, 0.4 * (moments[0] + moments[1]) / 2, atol=1e-5)
    before = method.covariance.clone()
    method.after_step(0.1)  # a step that was skipped held nothing
    assert torch.equal(method.covariance, before)


def test_tico_target_and_covariance_have_no_gradient():
    z, target = (t.requires_grad_() for t in draws(4, 3))
    c = torch.eye(3, dtype=torch.float64, requires_grad=True)
    sum(tico_terms(z, target, c).values()).backward()
    assert z.grad is not None
    assert target.grad is None
    assert c.grad is None
    assert math.isclose(
        tico_terms(F.normalize(z, dim=1), z, torch.eye(3).double())["invariance"].item(), 0, abs_tol=1e-9
    )


def test_tico_loss_uses_covariance_including_batch():
    torch.manual_seed(0)
    method, data = TiCo(ConvNet((1, 8, 8), width=4), beta=0.6, rho=3.0), images(6)
    size = len(method.covariance)
    method.covariance.copy_(torch.diag(torch.linspace(0, 1, size)))
    z1, z2 = (F.normalize(method.projector(method.backbone(x)), dim=1) for x in data.views)
    t1, t2 = (F.normalize(method.teacher(x), dim=1) for x in data.views)
    c = 0.6 * torch.diag(torch.linspace(0, 1, size)) + 0.4 * torch.cat([z1, z2]).T @ torch.cat([z1, z2]) / 12
    slow = sum(
        (1 - (z * t).sum(dim=1) + 3 * torch.einsum("ni,ij,nj->n", z, c, z)).mean() / 2 for z, t in ((z1, t2), (z2, t1))
    )
    assert method(data)["loss"].item() == pytest.approx(slow.item(), rel=1e-5)


# LeJEPA, VISReg ------------------------------------------------------------------------------------------------------


def test_lejepa_and_visreg_weights():
    """Weights 1 - lambda of invariance and lambda of regularization, as in both papers (other code adds lambda times it)."""
    out = LeJEPA(ConvNet((1, 8, 8), width=4), weight=0.3, slices=8)(images(6))
    assert out["loss"].item() == pytest.approx((0.7 * out["invariance"] + 0.3 * out["sigreg"]).item(), rel=1e-5)
    out = VISReg(ConvNet((1, 8, 8), width=4), weight=0.3, slices=8)(images(6))
    regular = out["centre"] + out["scale"] + out["shape"]
    assert out["loss"].item() == pytest.approx((0.7 * out["invariance"] + 0.3 * regular).item(), rel=1e-5)


def test_visreg_shape_detaches_standard_deviation():
    (z,) = draws(1, 9, 4, count=1)
    slices = F.normalize(draws(4, 6)[0], dim=0)
    fixed = z.std(dim=1, unbiased=False, keepdim=True)
    wanted = z.clone().requires_grad_()
    scaled = (wanted - wanted.mean(dim=1, keepdim=True)) / (fixed + 1e-4)
    ((scaled @ slices).sort(dim=1).values - normal_quantiles(9)[:, None]).square().mean().backward()
    found = z.clone().requires_grad_()
    visreg_terms(found, 1, slices)["shape"].backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-8, atol=1e-10)
