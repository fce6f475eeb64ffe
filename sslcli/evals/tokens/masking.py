"""Which tokens are hidden, and what a method predicts in their places."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcli.evals.base.features import EvalData, Split
from sslcli.methods.base import Method
from sslcli.nn.values import Tokens
from sslcli.rng import Draw, derive

AT_ONCE = 40_000_000  # logits in memory


def is_content(x: Tensor, values: Tokens) -> Tensor:
    """Bool, of the shape of x: tokens that are neither padding nor special."""
    no_content = torch.tensor(sorted({values.pad, *values.special}), device=x.device)
    return ~torch.isin(x, no_content)


def choose(x: Tensor, scores: Tensor, share: float, values: Tokens) -> Tensor:
    """The tokens to hide (B, L) bool: of each sample x (B, L) a `share` of its content, rounded, at least one; those with the
    smallest `scores` (B, L)."""
    content = is_content(x, values)
    count = (share * content.sum(dim=1, keepdim=True)).round().clamp(min=1)
    place = scores.masked_fill(~content, math.inf).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return content & (place < count)


def masked_batches(
    data: EvalData, values: Tokens, split: Split, ids: Tensor, share: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(ids (B,), clean views (B, L), the tokens to hide (B, L)), a function of `data.seed` and the sample."""
    length = data.dataset.shape[0]
    at_once = max(1, AT_ONCE // (max(1, math.ceil(share * length)) * values.size))
    seed = derive(data.seed, "fill")
    for batch_ids, views in data.batches(split, ids):
        for part, x in zip(batch_ids.split(at_once), views.split(at_once), strict=True):
            scores = Draw(seed, 0, part.to(x.device)).uniform("fill/token", x.shape[1])
            yield part, x, choose(x, scores, share, values)


@torch.no_grad()
def predict(method: Method, data: EvalData, values: Tokens, x: Tensor, where: Tensor) -> Tensor | None:
    """Log-probabilities (n, V) of the tokens at the n hidden positions of x (B, L), or None where the method predicts none."""
    with data.autocast():
        logits = method.token_logits(values.hide(x, where), where)
    return None if logits is None else logits.float().log_softmax(dim=1)
