"""Weighted k-nearest neighbours: what the geometry of frozen features knows, with nothing trained.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, Sec. 3.4: neighbours
by cosine, each votes for its class with exp(similarity / temperature).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.errors import RequestError
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import Baselines, EvalData, Result
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.interval import of_accuracies
from sslcli.evals.probe import averaged, check_seeds
from sslcli.runtime.progress import track

QUERIES = 1024  # at a time
BANK = 65_536  # at a time: similarities never take more than QUERIES x BANK floats (256 MB)


def knn(
    backbone: nn.Module,
    data: EvalData,
    *,
    k: int = 20,
    temperature: float = 0.1,
    labels: str | int = "all",
    seeds: int = 1,
    baselines: Baselines = True,
) -> Result:
    """`top1` on the test split, `raw.top1`, `untrained.top1`; with several draws of labels each with `_std`.

    k=20 by default; published CIFAR-10 tables use k=200 with the same temperature, ImageNet's 20. Never compare across.
    """
    amount = subsets.parse(labels, data.dataset)
    check_seeds(seeds)
    if not isinstance(k, int) or k < 1:
        raise RequestError(f"evaluator.k={k}: a number of neighbours, 1 or more, is needed", "evaluator.k=20")
    if not temperature > 0:
        raise RequestError(f"evaluator.temperature={temperature}: must be above 0", "evaluator.temperature=0.1")
    data.source("test")  # fail before any feature is computed
    notes: list[str] = []
    draws = seeds
    if amount.kind == "all" and seeds > 1:
        draws = 1
        notes.append(f"seeds={seeds} has no effect: with labels=all there is nothing to draw")

    numbers: dict[str, float] = {}
    protocol: dict[str, Any] = {"labels": str(amount), "seeds": draws, "k": k, "temperature": temperature}
    for kind, features in data.measured(backbone, baselines).items():
        (bank, y), (queries, truth) = features("train"), features("test")
        subsets.check(y, "train", data.dataset.name)
        kept = subsets.check(truth, "test", data.dataset.name, classes=1)
        queries, truth = F.normalize(queries[kept], dim=1), truth[kept]
        said, sure = [], []
        for index in track(range(draws), "draw of labels"):
            ids = subsets.draw(y, amount, data.seed, index, data.dataset.classes)
            if k > len(ids):
                notes.append(f"k={k} is more than the {len(ids)} labelled training samples: all of them vote")
            scores = votes(F.normalize(bank[ids], dim=1), y[ids], queries, k, temperature, data.device)
            said.append(scores.argmax(dim=1))
            sure.append(scores.amax(dim=1) / scores.sum(dim=1))
        right = [float((found == truth).double().mean()) for found in said]
        numbers |= averaged(f"{kind}.top1" if kind else "top1", right)
        if kind == "":
            protocol["dim"] = bank.shape[1]
            protocol["splits"] = {"train": len(y), "labelled": len(ids), "test": len(kept)}
            predictions = Predictions(data.ids("test")[kept], truth, torch.stack(said), torch.stack(sure))
    protocol["notes"] = data.remarks(baselines, notes)
    artefacts = predictions.files(data.source("test"), data.dataset.classes)
    return Result(numbers, protocol, artefacts, intervals=of_accuracies(numbers, protocol["splits"]["test"], draws))


def predict(
    bank: Tensor,
    y: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device = "cpu",
) -> Tensor:
    """(q,) classes of `queries` (q, d) by the nearest of `bank` (n, d), both L2-normalised, with classes `y` (n,)."""
    return votes(bank, y, queries, k, temperature, device).argmax(dim=1)


def votes(
    bank: Tensor,
    y: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device = "cpu",
) -> Tensor:
    """(q, K) what the neighbours give each class, the nearest of each query 1."""
    similarity, index = neighbours(bank, queries, min(k, len(bank)), device)
    # exp(s / T) up to a factor that a query's votes share: small temperatures do not overflow
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    return torch.zeros(len(queries), int(y.max()) + 1).scatter_add_(1, y[index], weights)


def neighbours(bank: Tensor, queries: Tensor, k: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """The k largest dot products of each query with `bank`, descending, and whose they are: (q, k) each, on the CPU.

    Exact; memory is bounded whatever the sizes.
    """
    assert 1 <= k <= len(bank), (k, len(bank))
    values = torch.full((len(queries), k), -torch.inf)
    places = torch.zeros(len(queries), k, dtype=torch.int64)
    # one buffer for all products: fresh memory for each would cost as much as a third of them
    room = torch.empty(min(QUERIES, len(queries)) * min(BANK, len(bank)), dtype=bank.dtype, device=device)
    for start in range(0, len(bank), BANK):
        some = bank[start : start + BANK].to(device)
        for at in range(0, len(queries), QUERIES):
            part = queries[at : at + QUERIES].to(device)
            products = room[: len(part) * len(some)].view(len(part), len(some))
            v, i = _top(torch.mm(part, some.T, out=products), min(k, len(some)))
            rows = slice(at, at + len(part))
            v, i = v.cpu(), i.cpu() + start
            if start:
                v, i = torch.cat([values[rows], v], dim=1), torch.cat([places[rows], i], dim=1)
                v, order = v.topk(k, dim=1)
                i = i.gather(1, order)
            values[rows, : v.shape[1]], places[rows, : i.shape[1]] = v, i
    return values, places


def _top(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`s.topk(k)` over (q, n), less sorting: the k largest lie in the k stripes whose maxima are largest."""
    q, n = s.shape
    k = min(k, n)
    deep = int((n / k) ** 0.5)  # entries of a stripe
    wide = n // max(deep, 1)  # stripes; stripe j holds columns j, j + wide, j + 2 wide, ...
    if n < 4096 or wide < k or deep < 4:
        return s.topk(k, dim=1)
    body = s[:, : deep * wide].unflatten(1, (deep, wide))
    stripes = body.amax(dim=1).topk(k, dim=1, sorted=False).indices  # (q, k)
    columns = (stripes[:, None] + torch.arange(0, deep * wide, wide, device=s.device)[None, :, None]).flatten(1)
    rest = torch.arange(deep * wide, n, device=s.device).expand(q, -1)
    columns = torch.cat([columns, rest], dim=1)
    values, order = s.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, order)
