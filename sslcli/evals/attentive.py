"""Attentive probe: one learned query looks at the frozen tokens, and what it sees is classified linearly.

A linear probe of the mean token asks whether a class can be read off the average; this one asks whether it is anywhere
in the tokens, which is fairer to masked methods. Chen et al., "Context Autoencoder", IJCV 2023, arXiv:2202.03026, Sec.
4.1; Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (V-JEPA), TMLR 2024,
arXiv:2404.08471, Sec. 3.3.

With tokens t_n (d), heads h of width d / H, a learned query q_h: a_hn = softmax_n(q_h . (K t_n)_h / sqrt(d / H)), and
the logits are C concat_h(sum_n a_hn (V t_n)_h) + b. Deviations: the query is learned as it is used (the papers project
it), no output projection (the classifier is one), no MLP block (V-JEPA has one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.console import human_count
from sslcli.data import notify
from sslcli.errors import RequestError
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, check_seeds, has_baseline
from sslcli.evals.finetune import Scores
from sslcli.evals.fit.grid_search import Choice, Grid, remarks
from sslcli.evals.fit.supervised import WARMUP, adamw, best_rate, own_randomness, ranked, rates_of
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics.interval import of_accuracies
from sslcli.evals.probe import probe
from sslcli.optim import cosine, parameter_groups
from sslcli.rng import derive, order

RATES = Grid((1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), first=3, last=5)  # continued while an edge is best
CACHE = 2 << 30  # bytes of tokens at most


class Head(nn.Module):
    """Tokens (B, N, d) to logits (B, K). Tokens are standardised by `mean` and `std` (d,) of those it was made for."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, heads: int, classes: int, mean: Tensor, std: Tensor):
        super().__init__()
        self.heads = heads
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.query = nn.Parameter(torch.randn(heads, dim // heads) * 0.02)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.classify = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """`seen` (B, N) bool: false where a token is padding."""
        b, n, d = tokens.shape
        t = (tokens.float() - self.mean) / self.std
        k, v = (f(t).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.key, self.value))  # (B, H, N, d / H)
        q = self.query[None, :, None].expand(b, -1, -1, -1)
        found = F.scaled_dot_product_attention(
            q, k, v, None if seen is None else seen[:, None, None, :]
        )  # (B, H, 1, d / H)
        return self.classify(found.reshape(b, d))


def attentive(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    seeds: int = 1,
    heads: int = 4,
    lr: float | list[float] | None = None,
    weight_decay: float = 0.05,
    epochs: int = 50,
    min_steps: int = 300,
    batch_size: int = 256,
    baselines: Baselines = True,
) -> Result:
    """`top1`, with more than five classes `top5`, `linear.top1` (the plain probe of the pooled features on the same draws), and
    `untrained.top1` (the same head on a backbone with random weights); with several seeds each with `_std`.

    The head learns by AdamW from the clean samples' tokens, which are computed once and kept in half precision; of the
    rates the one is taken that does best on a fifth of the labelled training samples. The test split is looked at once,
    after the last step. RequestError for a backbone without tokens, and where the tokens of the labelled samples take
    more than 2 GiB.
    """
    amount = subsets.parse(labels, data.dataset)
    check_seeds(seeds)
    check_backbone(backbone, heads)
    settings = _Settings(heads, _rates(lr), weight_decay, epochs, min_steps, batch_size)
    data.source("test")
    y = data.labels("train")
    name = data.dataset.name
    subsets.check(y, "train", name)
    kept = subsets.check(data.labels("test"), "test", name, classes=1)
    draws = [subsets.draw(y, amount, data.seed, index, data.dataset.classes) for index in range(seeds)]
    union = torch.cat(draws).unique()
    check_memory(backbone, len(union), len(data.dataset.classes))

    numbers: dict[str, float] = {}
    doubts: list[str] = []
    subjects = {"": backbone} | (
        {"untrained": data.untrained_backbone}
        if has_baseline(baselines, "untrained") and data.untrained_backbone is not None
        else {}
    )
    for kind, subject in subjects.items():
        assert subject is not None
        word = "tokens" if kind == "" else "tokens of an untrained backbone"
        scores, rates = _measure(subject, data, draws, union, kept, settings, word)
        doubts += remarks(rates, settings.rates, f"learning rate for {word}", "evaluator.lr")
        top = scores.numbers(kind)
        numbers |= top if kind == "" else {k: v for k, v in top.items() if "top1" in k}
        if kind == "":
            own, chosen = scores, rates
    linear = probe(backbone, data, labels=labels, seeds=seeds, baselines=False)
    numbers |= {f"linear.{k}": v for k, v in linear.numbers.items() if k in ("top1", "top1_std")}
    protocol = {
        "labels": str(amount),
        "seeds": seeds,
        "std": "standard deviation over draws (n - 1)",
        "tokens": backbone.num_tokens,
        "dim": backbone.dim,
        "heads": heads,
        "classes": own.total,
        "splits": {"train": len(y), "labelled": len(draws[-1]), "test": len(own.ids)},
        "lr": rates_of(chosen, settings.rates),
        "optimizer": f"AdamW, weight decay {weight_decay:g}, cosine after a warm-up of {WARMUP:.0%} of the steps",
        "steps": settings.steps(len(draws[-1])),
        "batch_size": batch_size,
        "linear": {"strength": linear.protocol["strength"], "solver": linear.protocol["solver"]},
        "notes": data.protocol_notes(baselines, doubts),
    }
    artefacts: dict[str, Any] = {
        "confusion.png": Confusion(own.confusion(data), data.dataset.classes),
        **own.predictions().files(data.source("test"), data.dataset.classes),
    }
    return Result(numbers, protocol, artefacts, intervals=of_accuracies(numbers, len(own.ids), seeds))


def _rates(lr: float | list[float] | None) -> Grid:
    if lr is None:
        return RATES
    given = list(lr) if isinstance(lr, (list, tuple)) else [lr]
    if not given or not all(0 < r < math.inf for r in given):
        raise RequestError(f"evaluator.lr={lr}: a number above 0, or a list of them, is needed", "evaluator.lr=0.001")
    return Grid.of(given)


@dataclass(frozen=True)
class _Settings:
    heads: int
    rates: Grid
    weight_decay: float
    epochs: int
    min_steps: int
    batch_size: int

    def __post_init__(self) -> None:
        for name, least in (("weight_decay", 0), ("epochs", 0), ("min_steps", 1), ("batch_size", 1)):
            if not least <= getattr(self, name) < math.inf:
                text = f"evaluator.{name}={getattr(self, name)}: at least {least} is needed"
                raise RequestError(text, f"evaluator.{name}={max(1, least)}")

    def steps(self, n: int) -> int:
        return max(self.min_steps, self.epochs * max(1, n // self.batch_size))


def check_backbone(backbone: Any, heads: int) -> None:
    if not hasattr(backbone, "tokens") or not hasattr(backbone, "patchify"):
        raise RequestError(
            f"the attentive probe looks at tokens, and {type(backbone).__name__} has none",
            "sslcli eval probe measures any backbone; backbone=vit_tiny has tokens",
        )
    if heads < 1 or backbone.dim % heads:
        fits = [h for h in range(1, 17) if backbone.dim % h == 0]
        raise RequestError(
            f"evaluator.heads={heads} does not divide the {backbone.dim} numbers of a token",
            f"evaluator.heads={fits[-1]}",
        )


def check_memory(backbone: Any, samples: int, classes: int) -> None:
    """RequestError where the tokens of so many samples, in half precision, are too much to keep."""
    each = 2 * backbone.num_tokens * backbone.dim
    if samples * each > CACHE:
        fits = CACHE // each
        raise RequestError(
            f"the tokens of {samples:,} labelled samples take {human_count(samples * each)}B, more than {human_count(CACHE)}B",
            f"labels={max(1, fits // max(1, classes))}/class",
        )


def tokens(
    backbone: Any, data: EvalData, batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """(ids (B,), patch tokens (B, N, d) in half precision, which are no padding (B, N) or None), a batch at a time."""
    with evaluating(backbone):
        for ids, x in batches:
            if data.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), data.autocast():
                found = backbone.tokens(x)[:, backbone.prefix :]
                seen = None if x.ndim == 4 else ~backbone.patchify(x).isnan().all(dim=2)
            yield ids, found.half(), seen


def _measure(
    backbone: Any, data: EvalData, draws: list[Tensor], union: Tensor, kept: Tensor, settings: _Settings, word: str
) -> tuple[Scores, list[Choice]]:
    """A head a draw; then all of them in one pass over the test split."""
    x = torch.empty(len(union), backbone.num_tokens, backbone.dim, dtype=torch.float16)
    seen: Tensor | None = None if len(data.dataset.shape) == 3 else torch.empty(x.shape[:2], dtype=torch.bool)
    read = torch.zeros(len(union), dtype=torch.bool)
    for ids, found, real in tokens(backbone, data, data.batches("train", union)):
        rows = torch.searchsorted(union, ids)
        x[rows], read[rows] = found.cpu(), True
        if seen is not None and real is not None:
            seen[rows] = real.cpu()
        notify.show_progress(word, int(read.sum()), len(union))
    heads: list[tuple[Head, Tensor]] = []
    chosen = []
    y = data.labels("train")
    for index, ids in enumerate(draws):
        rows = torch.searchsorted(union, ids)
        rows = rows[read[rows]]  # without those that cannot be read
        classes, own = y[union[rows]].unique(return_inverse=True)
        fit = _Fit(x, seen, rows, own, len(classes), settings, data, derive(data.seed, "attentive", index))
        of = data.source("train").groups
        groups = None if of is None else of[union[rows]]
        rate = best_rate(settings.rates, settings.rates.start[0], own, fit.seed, fit, fit.score, groups)
        heads.append((fit(torch.arange(len(rows)), rate.value), classes))
        chosen.append(rate)
        notify.show_progress("attentive heads", index + 1, len(draws))

    found_ids: list[Tensor] = []
    said: list[list[Tensor]] = [[] for _ in heads]
    sure: list[list[Tensor]] = [[] for _ in heads]
    for ids, t, real in tokens(backbone, data, data.batches("test", kept)):
        found_ids.append(ids)
        for i, (head, classes) in enumerate(heads):
            with torch.no_grad():
                first, p = ranked(head(t, real).cpu(), classes)
            said[i].append(first)
            sure[i].append(p)
    ids = torch.cat(found_ids)
    truth = data.labels("test")
    total = max(len(data.dataset.classes), int(y.max()) + 1, int(truth.max()) + 1)
    return Scores(ids, truth[ids], total, [torch.cat(p) for p in said], [torch.cat(p) for p in sure]), chosen


@dataclass
class _Fit:
    """Trains a head on the tokens of some samples: places among `rows`."""

    x: Tensor  # (m, N, d) half, on the CPU
    seen: Tensor | None
    rows: Tensor
    y: Tensor
    classes: int
    settings: _Settings
    data: EvalData
    seed: int

    def __call__(self, places: Tensor, rate: float) -> Head:
        settings, device = self.settings, self.data.device
        mean, std = moments(self.x, self.rows[places], self.seen)
        size = min(settings.batch_size, len(places))
        steps = settings.steps(len(places))
        with own_randomness(derive(self.seed, "head"), device):
            head = Head(self.x.shape[2], settings.heads, self.classes, mean, std).to(device)
            optimizer = adamw(parameter_groups(head, settings.weight_decay), rate, device)
            for step, part in enumerate(_parts(self.seed, len(places), size, steps)):
                for group in optimizer.param_groups:
                    group["lr"] = rate * cosine(step / steps, WARMUP)
                t, real, y = self.batch(places[part])
                loss = F.cross_entropy(head(t, real), y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        return head.eval()

    def batch(self, places: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        rows, device = self.rows[places], self.data.device
        seen = None if self.seen is None else self.seen[rows].to(device)
        return self.x[rows].to(device), seen, self.y[places].to(device)

    @torch.no_grad()
    def score(self, head: Head, places: Tensor) -> tuple[Tensor, Tensor]:
        found = [head(*self.batch(part)[:2]).cpu() for part in places.split(1024)]
        return torch.cat(found), self.y[places]


def _parts(seed: int, n: int, size: int, steps: int) -> Iterator[Tensor]:
    """Places of each step's samples: epochs in a new order each, what is left over of one waits for another."""
    per_epoch = n // size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            shuffled = order(derive(seed, "order"), epoch, n)
        yield shuffled[place * size : (place + 1) * size]


def moments(x: Tensor, rows: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of the tokens of some samples, a bounded part at a time; 1 where nothing varies."""
    count, total, squares = (
        0,
        torch.zeros(x.shape[2], dtype=torch.float64),
        torch.zeros(x.shape[2], dtype=torch.float64),
    )
    for part in rows.split(256):
        t = x[part].flatten(0, 1) if seen is None else x[part][seen[part]]
        t = t.double()
        count += len(t)
        total += t.sum(dim=0)
        squares += t.square().sum(dim=0)
    mean = total / max(1, count)
    std = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(std > 1e-6 * std.max(), std, 1.0).float()
