"""The evaluation workload of `throughput.py`: features of 60,000 x 512, 10 classes, 10,000 queries; ours beside
scikit-learn's and plain torch's. A row's name ends with the quality that was reached.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks import report

Contestant = tuple[Callable[[], Any], Callable[[Any], str]]  # what is timed, and what is said of its result
CLASSES, DIM, TRAIN, QUERIES = 10, 512, 60_000, 10_000
C = 0.1  # scikit-learn's
TEMPERATURE = 0.1


def evaluation(options: argparse.Namespace) -> list[report.Row]:
    """Seconds."""
    import torch

    x, y, queries, truth = features()
    bank, unit = (torch.nn.functional.normalize(part, dim=1) for part in (x, queries))
    contestants = probes(x, y, queries, truth) | neighbours(bank, y, unit, truth)
    for k in (10, 100):
        contestants |= clusters(x, k)
    results: dict[str, Any] = {}

    def timed(name: str, once: Callable[[], Any]) -> Callable[[], None]:
        return lambda: results.update({name: once()})

    rows = report.seconds_of({n: timed(n, once) for n, (once, _) in contestants.items()}, options.repeats)
    for row in rows:
        row["name"] += f" ({contestants[row['name']][1](results[row['name']])})"
    return rows


def features() -> tuple[Any, Any, Any, Any]:
    """x (60,000, 512) standardised, y, and 10,000 more of each: classes that overlap, features that are correlated."""
    import torch

    generator = torch.Generator().manual_seed(0)
    n = TRAIN + QUERIES
    centres = torch.randn(CLASSES, DIM, generator=generator)
    y = torch.randint(CLASSES, (n,), generator=generator)
    mixing = torch.randn(DIM, DIM, generator=generator) / DIM**0.5 * torch.linspace(1, 0.02, DIM)
    x = (centres[y] * 0.15 + torch.randn(n, DIM, generator=generator)) @ mixing
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def probes(x: Any, y: Any, queries: Any, truth: Any) -> dict[str, Contestant]:
    """One fit, and the whole of a probe."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from torch.nn import functional as F

    from sslcli.evals.fit import linear_probe
    from sslcli.evals.fit.logistic import Fit, Logistic

    def quality(weight: Any, bias: Any) -> str:
        """`weight` (d, K). The objective at C in float64, and the accuracy on the queries."""
        weight, bias = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
        loss = F.cross_entropy(x.double() @ weight + bias, y) + weight.square().sum() / (2 * C * len(x))
        return f"loss {float(loss):.8f}, {accuracy(weight, bias)}"

    def accuracy(weight: Any, bias: Any) -> str:
        return f"accuracy {float(((queries.to(weight) @ weight + bias).argmax(dim=1) == truth).double().mean()):.4f}"

    def whole() -> Fit:
        strength = linear_probe.choose_c(x, y, CLASSES, linear_probe.C_GRID, 0, 0).value
        return Logistic(x, y, CLASSES).fit(strength, linear_probe.TOLERANCE)

    def lbfgs() -> tuple[Any, Any]:
        weight, bias = torch.zeros(CLASSES, DIM, requires_grad=True), torch.zeros(CLASSES, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=300, tolerance_grad=linear_probe.TOLERANCE, line_search_fn="strong_wolfe"
        )

        def closure() -> Any:
            solver.zero_grad()
            loss = F.cross_entropy(x @ weight.T + bias, y) + weight.square().sum() / (2 * C * len(x))
            loss.backward()
            return loss

        solver.step(closure)
        return weight.detach().T, bias.detach()

    def scikit_learn() -> tuple[Any, Any]:
        fitted = LogisticRegression(C=C, tol=linear_probe.TOLERANCE, max_iter=1000).fit(x.numpy(), y.numpy())
        return fitted.coef_.T, fitted.intercept_

    one = f"probe, one fit at C = {C:g}"
    return {
        f"{one}: sslcli": (
            lambda: Logistic(x, y, CLASSES).fit(C, linear_probe.TOLERANCE),
            lambda fit: quality(fit.weight, fit.bias),
        ),
        f"{one}: torch L-BFGS": (lbfgs, lambda found: quality(*found)),
        f"{one}: scikit-learn lbfgs": (scikit_learn, lambda found: quality(*found)),
        "probe, strength chosen among six, then fitted: sslcli": (
            whole,
            lambda fit: f"C = {fit.strength:g}, {accuracy(fit.weight, fit.bias)}",
        ),
    }


def neighbours(bank: Any, y: Any, unit: Any, truth: Any) -> dict[str, Contestant]:
    """The same vote by each: exp(cosine / temperature)."""
    import numpy as np
    import torch
    from sklearn.neighbors import KNeighborsClassifier

    from sslcli.evals.fit import neighbors

    def blocks(k: int) -> Any:
        found = []
        for part in unit.split(1000):
            v, i = (part @ bank.T).topk(k)
            found.append(torch.zeros(len(part), CLASSES).scatter_add_(1, y[i], (v / TEMPERATURE).exp()).argmax(dim=1))
        return torch.cat(found)

    def scikit_learn(k: int) -> Any:
        model = KNeighborsClassifier(
            k, weights=lambda d: np.exp((1 - d) / TEMPERATURE), algorithm="brute", metric="cosine", n_jobs=-1
        )
        return torch.from_numpy(model.fit(bank.numpy(), y.numpy()).predict(unit.numpy()))

    def right(found: Any) -> str:
        return f"accuracy {float((found == truth).double().mean()):.4f}"

    found: dict[str, Contestant] = {}
    for k in (20, 200):
        found |= {
            f"kNN, k = {k}: sslcli": (lambda k=k: neighbors.classify(bank, y, unit, k, TEMPERATURE), right),  # type: ignore[misc]
            f"kNN, k = {k}: torch, blocks": (lambda k=k: blocks(k), right),  # type: ignore[misc]
            f"kNN, k = {k}: scikit-learn, brute": (lambda k=k: scikit_learn(k), right),  # type: ignore[misc]
        }
    return found


def clusters(x: Any, k: int) -> dict[str, Contestant]:
    """One start each, greedy k-means++, until the same criterion."""
    from sklearn.cluster import KMeans

    from sslcli.evals.fit.kmeans import kmeans

    def scikit_learn() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KMeans(k, n_init=1, random_state=0).fit(x.numpy())

    return {
        f"k-means, k = {k}: sslcli": (
            lambda: kmeans(x, k, seed=0),
            lambda found: f"inertia {found.inertia / len(x):.4f} a sample, {found.iterations} iterations",
        ),
        f"k-means, k = {k}: scikit-learn": (
            scikit_learn,
            lambda found: f"inertia {found.inertia_ / len(x):.4f} a sample, {found.n_iter_} iterations",
        ),
    }
