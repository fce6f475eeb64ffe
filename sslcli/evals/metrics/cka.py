"""Linear centered kernel alignment (CKA): similarity, in 0 .. 1, of two encoders' features of the same samples.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, arXiv:1905.00414, Eq. 2-4; unbiased
HSIC of Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, Eq. 4, as Nguyen et al., "Do Wide and Deep
Networks Learn the Same Things?", ICLR 2021, arXiv:2010.15327, use it.

For n samples with d features, neither estimator forms the n x n kernels: both use d x d products, so memory does not depend
on n.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROWS = 8192  # samples converted to float64 at a time


def cka(x: Tensor, y: Tensor, debiased: bool = True) -> float:
    """Linear CKA of features (n, d1) and (n, d2) of the same samples; nan if either is constant.

    `debiased`, the default, uses the unbiased HSIC of Song et al. The biased estimator is too high unless n >> d: for
    unrelated features it tends to 1 as d / n grows, for example with a few hundred test samples and 512 features. For
    n >> d both agree. The debiased estimate for unrelated features scatters around 0 and may be negative.
    """
    assert len(x) == len(y), (len(x), len(y))
    if debiased and len(x) < 4:
        return math.nan
    hsic = _unbiased if debiased else _biased
    xx, yy = hsic(x, x), hsic(y, y)
    if not (xx > 0 and yy > 0):
        return math.nan
    return hsic(x, y) / math.sqrt(xx) / math.sqrt(yy)


def _biased(x: Tensor, y: Tensor) -> float:
    """Biased HSIC times (n - 1)^2: ||x'y||^2 of centered features."""
    return float(_sums(x, y)[0])


def _unbiased(x: Tensor, y: Tensor) -> float:
    """Unbiased HSIC_1 times n (n - 3), of the kernels K = xx' and L = yy' with zero diagonals:

        tr(KL) + 1'K1 1'L1 / ((n - 1) (n - 2)) - 2 / (n - 2) 1'KL1

    HSIC_1 is invariant to constants added to rows and columns of a kernel, so the features may be centered first. Then row i
    of K sums to -|x_i|^2, and both 1'KL1 and ||x'y||^2 - tr(KL) equal the sum of |x_i|^2 |y_i|^2.
    """
    whole, both, k, m = _sums(x, y)
    n = len(x)
    return whole - both + k * m / ((n - 1) * (n - 2)) - 2 / (n - 2) * both


def _sums(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """Of centered features: ||x'y||^2, and the sums of |x_i|^2 |y_i|^2, of |x_i|^2 and of |y_i|^2."""
    mean_x, mean_y = (z.mean(dim=0, dtype=torch.float64) for z in (x, y))
    product = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        a = x[start : start + ROWS].double() - mean_x
        b = y[start : start + ROWS].double() - mean_y
        product += a.T @ b
        k, m = a.square().sum(dim=1), b.square().sum(dim=1)
        sums += torch.stack([(k * m).sum(), k.sum(), m.sum()])
    both, k, m = sums.tolist()
    return float(product.square().sum()), both, k, m
