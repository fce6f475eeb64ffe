"""Multinomial logistic regression with an L2 penalty: full-batch L-BFGS to a gradient tolerance.

The objective is scikit-learn's, C * sum of cross-entropies + |W|^2 / 2, divided by C * n; the bias is not penalized. With weights
of classes, the cross-entropy of a sample is multiplied by the weight of its class.
With two classes each class has a weight vector here, and scikit-learn's C is twice this one. The objective is strictly
convex in W, so the solution does not depend on the solver, and there is no learning rate or number of epochs to tune.

L-BFGS (Liu & Nocedal 1989) with two modifications for linear models. The logits are linear in the step length, so the
line search, a safeguarded one-dimensional Newton method, needs no pass over the features, and an iteration costs two
passes. The Hessian is close to a multiple of the features' covariance, whose eigenvectors give the initial inverse
Hessian; it acts as a preconditioner for correlated features.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FULL_RANK_UP_TO = 1024  # features; above it only the leading eigenvectors are used, with one curvature for the rest
LEADING = 256  # eigenvectors used above FULL_RANK_UP_TO
ONE_THREAD_UP_TO = 1_000_000  # elements of x
SMALL = 4_000_000  # elements of x; up to here float64 costs little
FEW = 64  # classes; up to here a transposed product (n, K) takes half the time of (K, n) on a CPU


_Metric = tuple[Tensor, Tensor, float]  # inverse curvature along the eigenvectors, orthogonal to them, and of the bias


@dataclass(frozen=True)
class Fit:
    """A fitted model. Logits are `x @ weight + bias`; `weight` (d, K), `bias` (K,), float32 on the CPU."""

    weight: Tensor
    bias: Tensor
    strength: float  # scikit-learn's C
    iterations: int
    grad_norm: float  # largest absolute entry of the objective's gradient
    converged: bool

    def logits(self, x: Tensor, chunk: int = 16384) -> Tensor:
        """Logits (n, K) of features x (n, d)."""
        return torch.cat([torch.addmm(self.bias, part, self.weight) for part in x.split(chunk)])


class Logistic:
    """A training set prepared for fits at several regularization strengths C.

    `x` (n, d) float on any device, `y` (n,) int64 in 0..classes-1. Small problems are solved in float64, larger ones in
    float32 (with float64 sums) and refined in float64 if float32 does not reach the tolerance. Each fit starts from the
    solution of the previous one. `weights` (K,): of the classes; None weights all samples equally.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, double: bool | None = None, weights: Tensor | None = None):
        assert x.shape[:1] == y.shape, (x.shape, y.shape)
        assert classes >= 2, classes
        n, d = x.shape
        if double is None:
            double = n * min(n, d) <= SMALL and x.device.type != "mps"  # mps has no float64
        x = x.to(torch.float64 if double else torch.float32)
        self.n, self.classes = n, classes
        self.y = y.to(x.device)
        self.weights = None if weights is None else weights.to(x.dtype).to(x.device)[self.y]  # (n,) of the samples
        self.mean = x.mean(dim=0)
        # With fewer samples than features the penalized solution is in the span of the samples (representer theorem):
        # rotating into it makes the problem smaller and leaves the solution unchanged.
        self.span: Tensor | None = None  # (d, r)
        if n < d and n <= FULL_RANK_UP_TO:
            u, s, vt = torch.linalg.svd(x - self.mean, full_matrices=False)
            r = max(1, int((s > s[0] * 1e-6).sum())) if len(s) else 1
            self.span = vt[:r].T
            self.x, self.center = u[:, :r] * s[:r], x.new_zeros(r)
            self.basis, self.curvature, self.rest = torch.eye(r).to(x), s[:r] ** 2 / n, x.new_zeros(())
        else:
            self.x, self.center = x, self.mean
            self.basis, self.curvature, self.rest = _spectrum(x, self.mean)
        self.weight = self.x.new_zeros(classes, self.x.shape[1])
        self.bias = self.x.new_zeros(classes)

    # Below, classes are the first dimension: products, softmax and sums over (K, n) are several times faster on a CPU
    # than over (n, K). The parameters are one tensor (K, r + 1); its last column is the bias of the centered features.

    def _forward(self, w: Tensor) -> Tensor:
        """Logits (K, n) of the centered features, computed without a centered copy."""
        bias = (w[:, -1] - w[:, :-1] @ self.center)[:, None]
        if self.classes <= FEW:
            return torch.mm(self.x, w[:, :-1].T).T.contiguous().add_(bias)
        return torch.addmm(bias, w[:, :-1], self.x.T)

    def _gradient(self, logits: Tensor, w: Tensor, decay: float) -> Tensor:
        residual = torch.softmax(logits, dim=0)  # (K, n)
        residual[self.y, torch.arange(self.n, device=residual.device)] -= 1
        if self.weights is not None:
            residual *= self.weights
        total = residual.sum(dim=1)
        g = torch.empty_like(w)
        g[:, :-1] = (residual @ self.x - total[:, None] * self.center) / self.n + decay * w[:, :-1]
        g[:, -1] = total / self.n
        return g

    def fit(self, strength: float, tol: float = 1e-5, max_iter: int = 500, history: int = 20) -> Fit:
        """Minimize at C = `strength` until no gradient entry exceeds `tol`; refine in float64 if float32 does not converge."""
        with _threads_for(self.x):
            solution = self._fit(strength, tol, max_iter, history)
            if solution.converged or self.x.dtype == torch.float64 or self.x.device.type == "mps":
                return solution
            for name in ("x", "center", "mean", "basis", "curvature", "rest", "weight", "bias", "span", "weights"):
                value = getattr(self, name)
                setattr(self, name, None if value is None else value.double())
            refined = self._fit(strength, tol, max_iter, history)
            return replace(refined, iterations=solution.iterations + refined.iterations)

    def _fit(self, strength: float, tol: float, max_iter: int, history: int) -> Fit:
        decay = 1.0 / (strength * self.n)
        w = torch.cat([self.weight, self.bias[:, None]], dim=1)
        logits = self._forward(w)
        g = self._gradient(logits, w, decay)
        metric = self._metric(logits, decay)
        pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
        iteration, fresh = 0, True
        while iteration < max_iter and float(g.abs().max()) > tol:
            direction = -self._newton_like(g, pairs, metric)
            along = self._forward(direction)  # change of the logits per unit step length
            t = self._search(logits, along, w, direction, decay)
            if t == 0.0:  # no descent at this precision: restart once without the history, then stop
                if fresh:
                    break
                pairs.clear()
                fresh = True
                continue
            iteration += 1
            fresh = False
            step = t * direction
            w = w + step
            # recompute the logits regularly: float32 increments drift away from the weights
            logits = self._forward(w) if iteration % 25 == 0 else logits.add_(along, alpha=t)
            new = self._gradient(logits, w, decay)
            change = new - g
            curvature = _dot(step, change)
            if curvature > 0:
                pairs.append((step, change, 1 / curvature))
            g = new
            if iteration % 10 == 0:
                metric = self._metric(logits, decay)  # the curvature falls as predictions become confident
        self.weight, self.bias = w[:, :-1], w[:, -1]
        final = float(self._gradient(self._forward(w), w, decay).abs().max())
        weight = self.weight if self.span is None else self.weight @ self.span.T  # (K, d)
        bias = self.bias - weight @ self.mean
        converged = final <= 2 * tol  # recomputed logits may differ by rounding
        return Fit(weight.T.float().cpu(), bias.float().cpu(), strength, iteration, final, converged)

    def _metric(self, logits: Tensor, decay: float) -> _Metric:
        """Initial inverse Hessian: inverse of covariance * (mean over classes of p (1 - p)) + penalty."""
        p = torch.softmax(logits, dim=0)
        spread = float(self._weighted(1 - (p * p).sum(dim=0)).mean()) / (self.classes - 1)
        spread = max(spread, 1e-3 / self.classes)
        # Curvatures below machine precision are rounding errors, and their inverses would dominate.
        smallest = torch.finfo(self.x.dtype).eps * self.curvature.max()
        known, rest = (1 / (spread * torch.maximum(c, smallest) + decay) for c in (self.curvature, self.rest))
        return known, rest, 1 / spread

    def _weighted(self, of_samples: Tensor) -> Tensor:
        """Values (n,) of the samples, multiplied by the weights of their classes."""
        return of_samples if self.weights is None else of_samples * self.weights

    def _newton_like(self, g: Tensor, pairs: deque[tuple[Tensor, Tensor, float]], metric: _Metric) -> Tensor:
        """L-BFGS two-loop recursion: approximate inverse Hessian times `g` (Nocedal & Wright 2006, Alg. 7.4)."""
        q, weights = g.clone(), []
        for step, change, inverse in reversed(pairs):
            weights.append(inverse * _dot(step, q))
            q.add_(change, alpha=-weights[-1])
        q = self._apply(q, metric)
        if pairs:
            _, change, inverse = pairs[-1]
            q.mul_(1 / (inverse * _dot(change, self._apply(change, metric))))
        for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
            q.add_(step, alpha=weight - inverse * _dot(change, q))
        return q

    def _apply(self, g: Tensor, metric: _Metric) -> Tensor:
        """Initial inverse Hessian times `g`: `known` along the eigenvectors, `rest` orthogonal to them."""
        known, rest, bias = metric
        out = torch.empty_like(g)
        inside = g[:, :-1] @ self.basis
        out[:, :-1] = (inside * known) @ self.basis.T
        # With a complete basis the orthogonal part is a rounding error that `rest` would amplify.
        if self.basis.shape[0] > self.basis.shape[1]:
            out[:, :-1] += rest * (g[:, :-1] - inside @ self.basis.T)
        out[:, -1] = bias * g[:, -1]
        return out

    def _search(self, logits: Tensor, along: Tensor, w: Tensor, direction: Tensor, decay: float) -> float:
        """Line search: a step length at which the slope has fallen to a tenth; 0.0 if `direction` is no descent direction.

        The objective is convex along the line, so points of negative and positive slope bracket the minimum. Newton's
        step is taken if it stays in the bracket, else a bisection step.
        """
        ww, wd = decay * _dot(w[:, :-1], direction[:, :-1]), decay * _dot(direction[:, :-1], direction[:, :-1])
        picked = self._weighted(along.gather(0, self.y[None])[0]).sum(dtype=torch.float64)

        def slopes(t: float) -> tuple[float, float]:
            p = torch.softmax(torch.add(logits, along, alpha=t), dim=0)
            first = (p * along).sum(dim=0)  # (n,)
            second = (p * along * along).sum(dim=0) - first * first
            first, second = self._weighted(first), self._weighted(second)
            slope = float((first.sum(dtype=torch.float64) - picked) / self.n) + ww + t * wd
            return slope, float(second.sum(dtype=torch.float64) / self.n) + wd

        start, _ = slopes(0.0)
        if not start < 0:
            return 0.0
        low, high, t = 0.0, float("inf"), 1.0
        for _ in range(30):
            slope, bend = slopes(t)
            if abs(slope) <= 0.1 * -start:
                return t
            low, high = (t, high) if slope < 0 else (low, t)
            newton = t - slope / bend if bend > 0 else low
            if low < newton < high and newton < 10 * t:
                t = newton
            else:
                t = 4 * t if high == float("inf") else (low + high) / 2
        return low


@contextmanager
def _threads_for(x: Tensor) -> Iterator[None]:
    """Use one thread for small problems, where synchronizing threads in thousands of short calls costs more than it saves."""
    threads = torch.get_num_threads()
    if x.device.type != "cpu" or x.numel() > ONE_THREAD_UP_TO or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))


def _spectrum(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leading eigenvectors (d, r) and eigenvalues (r,) of the covariance, and the mean of the remaining eigenvalues.

    They only precondition the solver, so a subset of the rows is enough.
    """
    n, d = x.shape
    rows = x[:: max(1, n // (8 * min(d, FULL_RANK_UP_TO)))]
    centered = rows - mean
    if d <= FULL_RANK_UP_TO:
        values, vectors = torch.linalg.eigh(centered.T @ centered / len(rows))
        return vectors, values.clamp(min=0), x.new_zeros(())
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(d, LEADING + 16, generator=generator).to(x)
    for _ in range(2):  # subspace iteration (Halko, Martinsson & Tropp 2011, Alg. 4.4)
        probe = torch.linalg.qr(centered.T @ (centered @ probe)).Q
    _, s, vt = torch.linalg.svd(centered @ probe, full_matrices=False)
    values = s[:LEADING] ** 2 / len(rows)
    total = centered.square().sum() / len(rows)
    rest = ((total - values.sum()) / max(1, d - LEADING)).clamp(min=0)
    return probe @ vt[:LEADING].T, values, rest
