"""The solver against scikit-learn's, and the optimality conditions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sslcli.evals.fit import logistic
from sslcli.evals.fit.logistic import Logistic


def problem(n: int, d: int, classes: int, correlated: float = 1.0, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x = x @ (torch.eye(d) + correlated * torch.randn(d, d, generator=g)).double() + 0.3
    y = (x[:, :classes] / x[:, :classes].std(dim=0) + torch.randn(n, classes, generator=g)).argmax(dim=1)
    y[:classes] = torch.arange(classes)
    return x / x.std(dim=0), y


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize(("n", "d", "classes"), [(300, 20, 5), (40, 120, 4), (300, 10, 2)])
def test_logistic_matches_scikit_learn(n, d, classes, strength):
    from sklearn.linear_model import LogisticRegression

    x, y = problem(n, d, classes)
    # with two classes scikit-learn fits one vector, the difference of the two here: its penalty counts twice
    c = strength if classes > 2 else 2 * strength
    theirs = LogisticRegression(C=c, tol=1e-9, max_iter=10_000).fit(x.numpy(), y.numpy())
    ours = Logistic(x, y, classes).fit(strength, tol=1e-10)
    assert ours.converged
    expected = torch.tensor(theirs.predict_proba(x.numpy()))
    torch.testing.assert_close(torch.softmax(ours.logits(x.float()).double(), dim=1), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("double", [True, False])
def test_logistic_gradient_is_zero(double):
    x, y = problem(400, 30, 6)
    fit = Logistic(x, y, 6, double=double).fit(0.3, tol=1e-5)
    w, b = fit.weight.double().requires_grad_(), fit.bias.double().requires_grad_()
    loss = F.cross_entropy(x @ w + b, y) + (w * w).sum() / (2 * 0.3 * 400)
    for g in torch.autograd.grad(loss, (w, b)):
        assert g.abs().max() < 3e-5
    assert fit.grad_norm < 2e-5
    assert fit.converged


def test_logistic_is_equal_in_the_span_of_samples(monkeypatch):
    x, y = problem(50, 90, 4)
    short = Logistic(x, y, 4)
    assert short.x.shape[1] < 50
    a = short.fit(1.0, tol=1e-10)
    monkeypatch.setattr(logistic, "FULL_RANK_UP_TO", 10)
    monkeypatch.setattr(logistic, "LEADING", 10)
    long = Logistic(x, y, 4)  # and the way for very wide features, with a few leading directions
    assert long.x.shape[1] == 90
    b = long.fit(1.0, tol=1e-10)
    assert b.converged
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a.bias, b.bias, rtol=1e-4, atol=1e-6)


def test_logistic_warm_start_reaches_the_same_solution():
    x, y = problem(300, 20, 5)
    cold = Logistic(x, y, 5).fit(1.0, tol=1e-9)
    model = Logistic(x, y, 5)
    for strength in (1e-3, 1e-2, 1e-1):
        model.fit(strength)
    warm = model.fit(1.0, tol=1e-9)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=1e-4, atol=1e-6)
    assert model.fit(1.0, tol=1e-9).iterations == 0


def test_logistic_on_correlated_features_needs_few_iterations():
    x, y = problem(2000, 100, 10, correlated=3.0)
    assert torch.linalg.cond(x) > 100
    assert Logistic(x, y, 10).fit(1.0).iterations < 60


def test_logistic_on_constant_and_separable_features():
    x = torch.tensor([[0.0, -1.0], [0.0, -2.0], [0.0, 1.0], [0.0, 3.0]])
    y = torch.tensor([0, 0, 1, 1])
    fit = Logistic(x, y, 2).fit(1e4)
    assert fit.converged
    assert fit.weight[0].tolist() == [0.0, 0.0]
    assert fit.logits(x).argmax(dim=1).tolist() == y.tolist()


def test_logistic_reports_nonconvergence():
    x, y = problem(300, 20, 5)
    fit = Logistic(x, y, 5).fit(1.0, tol=1e-9, max_iter=2)
    assert fit.iterations == 2
    assert not fit.converged


def test_logistic_float32_converges_with_weak_penalty():
    """In float32 the inverse of the penalty is 10^6 here; where the metric multiplied rounding by it, the fit stopped
    after a few steps, far from the optimum."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 256, generator=generator) @ torch.randn(256, 256, generator=generator)
    x = (x - x.mean(0)) / x.std(0)
    truth = torch.randn(256, 10, generator=generator) / 4
    y = (x @ truth + torch.randn(20_000, 10, generator=generator)).argmax(1)
    found = Logistic(x, y, 10, double=False)._fit(1000.0, 1e-5, 500, 20)
    assert found.converged, (found.iterations, found.grad_norm)
    exact = Logistic(x, y, 10, double=True).fit(1000.0, 1e-7)
    assert (found.logits(x).argmax(1) == exact.logits(x).argmax(1)).double().mean() > 0.999


def test_logistic_refines_in_float64(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 5, generator=generator), torch.arange(200) % 3
    model = Logistic(x, y, 3, double=False)
    found = model.fit(1.0, tol=1e-11)  # out of reach of float32
    assert found.converged
    assert model.x.dtype == torch.float64
