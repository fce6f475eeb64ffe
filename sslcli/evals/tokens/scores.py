"""Accuracy and perplexity over hidden tokens, with intervals over documents."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcli.evals.metrics.interval import SUFFIX, Interval, Z
from sslcli.evals.tokens.masking import is_content
from sslcli.nn.values import Tokens

TOP = 5


class TokenScores:
    """Sums of each document: hidden tokens, those predicted, those among the five most likely, and nats."""

    names = ("count", "right", "top5", "nats")

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, log_p: Tensor, x: Tensor, where: Tensor) -> None:
        """log_p (n, V) at the n positions of x (B, L) where `where` is true."""
        target = x[where]
        of_target = log_p.gather(1, target[:, None])
        above = (log_p > of_target).sum(dim=1)
        equal = (log_p == of_target).sum(dim=1)  # ties count as the mean over their orders
        right, top5 = (((k - above).clamp(min=0) / equal).clamp(max=1) for k in (1, TOP))
        each = torch.stack([torch.ones_like(right), right, top5, -of_target[:, 0]], dim=1).double()
        rows = torch.nonzero(where)[:, 0]
        sums = torch.zeros(len(x), len(self.names), dtype=torch.float64, device=x.device)
        self._sums.append(sums.index_add_(0, rows, each).cpu())

    @property
    def tokens(self) -> int:
        return int(torch.cat(self._sums)[:, 0].sum())

    def metrics(self, prefix: str = "") -> tuple[dict[str, float], dict[str, Interval]]:
        """`accuracy`, `top5` and `perplexity`, and their 95 % intervals.

        Each is a ratio of two sums over documents, whose variance follows by linearization (Cochran, "Sampling Techniques", 1977,
        Sec. 2.11): tokens of one document are not independent."""
        sums = torch.cat(self._sums)
        count, n = sums[:, 0], len(sums)
        metrics, intervals = {}, {}
        for name, column in (("accuracy", 1), ("top5", 2), ("perplexity", 3)):
            ratio = sums[:, column].sum() / count.sum()
            deviations = sums[:, column] - ratio * count
            half = Z * float((deviations.square().sum() * n / max(1, n - 1)).sqrt() / count.sum())
            low, high = float(ratio) - half, float(ratio) + half
            if name == "perplexity":
                metrics[prefix + name] = math.exp(float(ratio))
                intervals[prefix + name + SUFFIX] = math.exp(low), math.exp(high)
            else:
                metrics[prefix + name] = float(ratio)
                intervals[prefix + name + SUFFIX] = max(0.0, low), min(1.0, high)
        return metrics, dict(intervals)


def unigram(batches: Iterator[Tensor], values: Tokens) -> Tensor:
    """Log-probabilities (V,) of tokens by how often they occur in views (B, L), one occurrence added to each token (Laplace); of
    padding and special tokens -inf."""
    counts = torch.zeros(values.size, dtype=torch.float64)
    for x in batches:
        counts += x.flatten().bincount(minlength=values.size).double().cpu()
    allowed = is_content(torch.arange(values.size), values)
    counts = torch.where(allowed, counts + 1, 0.0)
    return (counts / counts.sum()).log().float()
