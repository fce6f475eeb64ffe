"""An attention head on frozen tokens: one learned query and a linear classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import TokenBackbone, matching
from sslcli.console import human_count
from sslcli.errors import RequestError
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.classifier.class_weight import ClassWeight, class_weights
from sslcli.evals.finetuning.recipe import Passes, describe_length
from sslcli.evals.finetuning.training import WARMUP, adamw, seeded
from sslcli.evals.fit.grid_search import Grid
from sslcli.optim import cosine, parameter_groups
from sslcli.rng import derive, order

CACHE = 2 << 30  # bytes of tokens at most


class Head(nn.Module):
    """Tokens (B, N, d) to logits (B, K). Tokens are standardized by `mean` and `std` (d,) of those it was made for."""

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

    def forward(self, patch_tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """`seen` (B, N) bool: false where a token is padding."""
        b, n, d = patch_tokens.shape
        t = (patch_tokens.float() - self.mean) / self.std
        k, v = (f(t).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.key, self.value))  # (B, H, N, d / H)
        q = self.query[None, :, None].expand(b, -1, -1, -1)
        attended = F.scaled_dot_product_attention(
            q, k, v, None if valid is None else valid[:, None, None, :]
        )  # (B, H, 1, d / H)
        return self.classify(attended.reshape(b, d))


@dataclass(frozen=True)
class HeadSettings(Passes):
    heads: int
    rates: Grid
    weight_decay: float
    epochs: int | None
    min_steps: int | None
    batch_size: int
    class_weight: ClassWeight = None

    def __post_init__(self) -> None:
        self.check_length()
        for name, least in (("weight_decay", 0), ("batch_size", 1)):
            if not least <= getattr(self, name) < math.inf:
                text = f"evaluator.{name}={getattr(self, name)}: expected at least {least}"
                raise RequestError(text, f"evaluator.{name}={max(1, least)}")

    def steps(self, n: int) -> int:
        return max(self.least_steps, self._steps_of_epochs(n))

    def describe(self, n: int) -> str:
        """How long the training on n labeled samples is."""
        return describe_length(self.passes, n, self._steps_of_epochs(n), self.steps(n))

    def other_length(self, n: int) -> bool:
        """Whether the training on n labeled samples is longer than its epochs."""
        return self.steps(n) != self._steps_of_epochs(n)

    def _steps_of_epochs(self, n: int) -> int:
        return self.passes * max(1, n // self.batch_size)


def with_tokens(backbone: Any) -> str:
    """The backbones with tokens for the samples of this one, for a hint; "" where there are none."""
    values = getattr(backbone, "values", None)
    names = [] if values is None else matching(values.kind, tuple(backbone.input_shape), TokenBackbone)
    return f"; with tokens: backbone={', '.join(names)}" if names else ""


def check_backbone(backbone: Any, heads: int) -> None:
    if not hasattr(backbone, "tokens") or not hasattr(backbone, "patchify"):
        raise RequestError(
            f"the attentive probe requires tokens, and {type(backbone).__name__} has none",
            f"sslcli eval probe measures any backbone{with_tokens(backbone)}",
        )
    if heads < 1 or backbone.dim % heads:
        fits = [h for h in range(1, 17) if backbone.dim % h == 0]
        raise RequestError(
            f"evaluator.heads={heads} does not divide the {backbone.dim} features of a token",
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


def patch_tokens(
    backbone: Any, data: EvalData, batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """(ids (B,), patch tokens (B, N, d) in half precision, which are no padding (B, N) or None), a batch at a time."""
    with evaluating(backbone):
        for ids, x in batches:
            if data.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), data.autocast():
                attended = backbone.tokens(x)[:, backbone.prefix :]
                valid = backbone.present(x)
            yield ids, attended.half(), valid


@dataclass
class HeadTraining:
    """Trains a head on the tokens of some samples: places among `rows`."""

    x: Tensor  # (m, N, d) half, on the CPU
    valid: Tensor | None
    rows: Tensor
    y: Tensor
    classes: int
    settings: HeadSettings
    data: EvalData
    seed: int

    def __post_init__(self) -> None:
        self.weights = class_weights(self.y, self.classes, self.settings.class_weight)  # (K,)

    def __call__(self, places: Tensor, rate: float) -> Head:
        settings, device = self.settings, self.data.device
        mean, std = moments(self.x, self.rows[places], self.valid)
        size = min(settings.batch_size, len(places))
        steps = settings.steps(len(places))
        weights = None if self.weights is None else self.weights.float().to(device)
        with seeded(derive(self.seed, "head"), device):
            head = Head(self.x.shape[2], settings.heads, self.classes, mean, std).to(device)
            optimizer = adamw(parameter_groups(head, settings.weight_decay), rate, device)
            for step, part in enumerate(_parts(self.seed, len(places), size, steps)):
                for group in optimizer.param_groups:
                    group["lr"] = rate * cosine(step / steps, WARMUP)
                t, valid, y = self.batch(places[part])
                loss = F.cross_entropy(head(t, valid), y, weights)
                if (
                    weights is not None
                ):  # divided by the samples of the batch, not by their weights: rare classes are in few
                    loss = loss * weights[y].mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        return head.eval()

    def batch(self, places: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        rows, device = self.rows[places], self.data.device
        valid = None if self.valid is None else self.valid[rows].to(device)
        return self.x[rows].to(device), valid, self.y[places].to(device)

    @torch.no_grad()
    def score(self, head: Head, places: Tensor) -> tuple[Tensor, Tensor]:
        attended = [head(*self.batch(part)[:2]).cpu() for part in places.split(1024)]
        return torch.cat(attended), self.y[places]


def _parts(seed: int, n: int, size: int, steps: int) -> Iterator[Tensor]:
    """Places of each step's samples: epochs in a new order each, what is left over of one waits for another."""
    per_epoch = n // size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            shuffled = order(derive(seed, "order"), epoch, n)
        yield shuffled[place * size : (place + 1) * size]


def moments(x: Tensor, rows: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of the tokens of some samples, a bounded part at a time; 1 where nothing varies."""
    count, total, squares = (
        0,
        torch.zeros(x.shape[2], dtype=torch.float64),
        torch.zeros(x.shape[2], dtype=torch.float64),
    )
    for part in rows.split(256):
        t = x[part].flatten(0, 1) if valid is None else x[part][valid[part]]
        t = t.double()
        count += len(t)
        total += t.sum(dim=0)
        squares += t.square().sum(dim=0)
    mean = total / max(1, count)
    std = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(std > 1e-6 * std.max(), std, 1.0).float()
