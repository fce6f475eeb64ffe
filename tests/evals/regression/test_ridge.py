"""Ridge regression equals that of scikit-learn, and its penalty is the best in cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from sslcli.evals.fit.grid_search import Grid
from sslcli.evals.inputs.label_subsets import folds
from sslcli.evals.regression.errors import errors
from sslcli.evals.regression.ridge import ALPHA_GRID, Ridge, choose_alpha


@pytest.mark.parametrize("n", [12, 80])  # fewer rows than features, and more
@pytest.mark.parametrize("alpha", [1e-3, 10.0])
def test_ridge_equals_that_of_scikit_learn(n, alpha):
    g = np.random.default_rng(0)
    x, y = g.normal(size=(n, 30)), g.normal(size=n) + 5
    expected = Reference(alpha=alpha).fit(x, y)
    fit = Ridge(torch.tensor(x), torch.tensor(y)).fit(alpha)
    assert np.allclose(fit.weight, expected.coef_)
    assert np.allclose(fit.predict(torch.tensor(x)), expected.predict(x))


def test_errors_equal_those_of_scikit_learn():
    g = np.random.default_rng(1)
    y, predicted = g.normal(size=50), g.normal(size=(2, 50))
    expected = [[f(y, p) for p in predicted] for f in (root_mean_squared_error, mean_absolute_error, r2_score)]
    assert np.allclose(errors(torch.tensor(y), torch.tensor(predicted)), expected)


def test_alpha_grows_with_the_noise():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 40, generator=g)
    signal = x @ torch.randn(40, generator=g)
    noise = torch.randn(60, generator=g)
    clean, noisy = (choose_alpha(x, signal + s * noise, ALPHA_GRID, 0, 0).value for s in (0.01, 30.0))
    assert clean < noisy


@pytest.mark.parametrize("grouped", [False, True])
def test_alpha_is_the_best_of_cross_validation(grouped):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(60, 30, generator=g)
    y = x[:, 0] + 3 * torch.randn(60, generator=g)
    groups = torch.arange(60) // 6 if grouped else None
    grid = Grid.of([1e-2, 1.0, 10.0, 100.0, 1000.0])
    fold = folds(torch.zeros(60, dtype=torch.int64), 5, 0, 0, groups)
    if groups is not None:
        assert all(len(fold[groups == group].unique()) == 1 for group in groups.unique())
    error = {}
    for alpha in grid.values:
        models = [Reference(alpha).fit(x[fold != f].numpy(), y[fold != f].numpy()) for f in range(5)]
        error[alpha] = sum(((models[f].predict(x[fold == f]) - y[fold == f].numpy()) ** 2).sum() for f in range(5))
    assert choose_alpha(x, y, grid, 0, 0, groups).value == min(error, key=error.__getitem__)


def test_one_group_is_divided():
    x, y = torch.randn(20, 3), torch.randn(20)
    one = choose_alpha(x, y, ALPHA_GRID, 0, 0, torch.zeros(20, dtype=torch.int64))
    assert one == choose_alpha(x, y, ALPHA_GRID, 0, 0)


def test_few_rows_have_no_choice():
    choice = choose_alpha(torch.randn(3, 3), torch.randn(3), ALPHA_GRID, 0, 0)
    assert (choice.value, choice.how) == (1.0, "default: too few labels to choose from")


@pytest.mark.parametrize("n", [1, 3, 40])  # one row; fewer rows than features; more
def test_equal_values_have_no_weights(n):
    x = torch.randn(n, 5, generator=torch.manual_seed(0))
    fit = Ridge(x, torch.full((n,), 0.1, dtype=torch.float64)).fit(1e-6)
    assert torch.allclose(fit.weight, torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(fit.predict(torch.randn(4, 5)), torch.full((4,), 0.1, dtype=torch.float64))


def test_equal_values_have_no_explained_variance():
    y = torch.full((7,), 0.1, dtype=torch.float64)  # whose mean is not 0.1 to the last bit
    rmse, mae, r2 = errors(y, y[None] + 1)[:, 0]
    assert (float(rmse), float(mae)) == pytest.approx((1, 1))
    assert r2.isnan()
