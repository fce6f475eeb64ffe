"""CKA against its definition with explicit kernels, and on known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sslcli.evals.metrics import cka as module
from sslcli.evals.metrics.cka import cka


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_kernels(x: torch.Tensor, y: torch.Tensor, debiased: bool) -> float:
    """Both definitions, with the n x n kernels: Kornblith et al., Eq. 3-4; Song et al., Eq. 4."""
    k, m = (z.double().numpy() @ z.double().numpy().T for z in (x, y))
    n = len(k)

    def plain(a, b):
        h = np.eye(n) - 1 / n
        return np.trace(a @ h @ b @ h)

    def song(a, b):
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        one = np.ones(n)
        return (
            np.trace(a @ b)
            + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ a @ b @ one)
        ) / (n * (n - 3))

    hsic = song if debiased else plain
    return float(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("n, d1, d2", [(50, 8, 5), (12, 30, 40), (4, 3, 3)])
def test_cka_matches_its_definition(monkeypatch, debiased, n, d1, d2):
    monkeypatch.setattr(module, "ROWS", 7)  # in parts
    x = normal(n, d1) + 3
    y = normal(n, d2, seed=1) + x[:, :1]
    assert cka(x, y, debiased) == pytest.approx(by_kernels(x, y, debiased), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_is_invariant_to_rotation_scale_and_shift(debiased):
    x = normal(100, 6)
    rotation = torch.linalg.qr(normal(6, 6, seed=1)).Q
    assert cka(x, -4 * x @ rotation + 7, debiased) == pytest.approx(1, abs=1e-5)
    assert cka(x, x * torch.tensor([1.0, 1, 1, 1, 1, 30]), debiased) < 0.6
    y = normal(100, 3, seed=2)
    assert cka(x, y, debiased) == pytest.approx(cka(y, x, debiased))


def test_biased_cka_of_orthogonal_features():
    """k of d orthonormal directions shared: ||x'y||^2 / (||x'x|| ||y'y||) = k / d."""
    q = torch.linalg.qr(torch.cat([torch.ones(40, 1), normal(40, 12)], dim=1).double()).Q[:, 1:]
    assert cka(q[:, :8], q[:, 4:12], debiased=False) == pytest.approx(4 / 8)


def test_debiased_cka_of_unrelated_features_is_near_zero():
    found = [cka(normal(60, 200, seed=2 * i), normal(60, 200, seed=2 * i + 1)) for i in range(20)]
    assert abs(float(np.mean(found))) < 0.02
    assert cka(normal(60, 200), normal(60, 200, seed=1), debiased=False) > 0.7


def test_cka_estimators_agree_for_many_samples():
    x = normal(20_000, 8)
    y = x @ normal(8, 8, seed=1) + normal(20_000, 8, seed=2)
    assert cka(x, y) == pytest.approx(cka(x, y, debiased=False), abs=2e-3)


def test_cka_of_constant_features_is_nan():
    assert math.isnan(cka(torch.ones(10, 3), normal(10, 3)))
    assert math.isnan(cka(normal(3, 2), normal(3, 2)))
