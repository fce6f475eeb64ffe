"""Next sentence prediction: pairs of segments of which half are not consecutive, and the head that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.bert_layers import init_bert
from sslcli.nn.dist import all_reduce_mean, gather, rank
from sslcli.nn.precision import full_precision
from sslcli.nn.values import Tokens


@dataclass(frozen=True)
class SentencePairs:
    """x (B, L): [CLS] A [SEP] B [SEP] padding. swapped (B,) int64: 1 where B comes from another sample, 0 where it follows A.
    valid (B,) bool: the samples that are targets."""

    x: Tensor
    swapped: Tensor
    valid: Tensor


def swap_second_segments(x: Tensor, values: Tokens, swap: Tensor, scores: Tensor) -> SentencePairs:
    """Permute the second segments of the samples where `swap` (B,) is true among each other, over the global batch.

    The permutation is a random cycle, by `scores` (B,) in [0, 1): no sample keeps its own segment, unless there is only one.
    A segment from a partner is as long as the shorter one of both. Each sample that is not swapped has a partner too, whose
    length cuts its segment: else the length would tell the two cases apart. No target is a sample without content in one of the
    segments, and one whose partner is itself or has the same text."""
    assert values.separator is not None
    every = gather(x)  # (N, L)
    begin, length = second_segments(every, values)
    group = torch.where(length > 0, gather(swap.long()), 2)
    partner = next_in_cycle(group, gather(scores))
    own = rank() * len(x) + torch.arange(len(x), device=x.device)  # rows of this process
    partner, swapped = partner[own], group[own] == 1
    size = torch.minimum(length[own], length[partner])
    kept = _with_second(x, begin[own], x, begin[own], size, values)
    other = _with_second(x, begin[own], every[partner], begin[partner], size, values)
    differs = (kept != other).any(dim=1)
    valid = (group[own] < 2) & (size > 0) & (differs | ~swapped)
    out = torch.where((swapped & (size > 0))[:, None], other, kept)
    return SentencePairs(torch.where((size > 0)[:, None], out, x), swapped.long(), valid)


def second_segments(x: Tensor, values: Tokens) -> tuple[Tensor, Tensor]:
    """For samples (N, L): where the second segment begins, after the first separator, and the number of its content tokens, at
    most as many as leave room for a separator, 0 where one of the segments has none; both (N,) int64."""
    assert values.separator is not None
    end = x.eq(values.separator)
    after = (end.long().cumsum(dim=1) - end.long() > 0) & ~end & values.present(x)
    begin = torch.where(end.any(dim=1), end.long().argmax(dim=1) + 1, x.shape[1])
    room = (x.shape[1] - 1 - begin).clamp(min=0)
    shortest = 1 if values.start is None else 2  # the class token and the separator of the first segment
    return begin, torch.minimum(after.sum(dim=1), room).masked_fill(begin <= shortest, 0)


def next_in_cycle(group: Tensor, scores: Tensor) -> Tensor:
    """(N,) int64: for each sample the next one of its group (N,) in the cyclic order of `scores` (N,)."""
    order = scores.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, then by score
    sorted_group = group[order].contiguous()
    start = torch.searchsorted(sorted_group, sorted_group)
    size = torch.searchsorted(sorted_group, sorted_group, right=True) - start
    at = torch.arange(len(group), device=group.device)
    return torch.empty_like(order).scatter(0, order, order[start + (at - start + 1) % size])


def _with_second(x: Tensor, begin: Tensor, other: Tensor, start: Tensor, size: Tensor, values: Tokens) -> Tensor:
    """The first segments of x (B, L), which end before `begin`, then `size` tokens of `other` (B, L) from `start`, a separator and
    padding."""
    offset = torch.arange(x.shape[1], device=x.device) - begin[:, None]  # (B, L)
    second = other.gather(1, (start[:, None] + offset).clamp(0, x.shape[1] - 1))
    tail = torch.where(offset < size[:, None], second, values.pad)
    tail = torch.where(offset == size[:, None], values.separator or 0, tail)
    return torch.where(offset < 0, x, tail)


class NextSentence(nn.Module):
    """BERT's head: tanh of a linear layer of the class token (the pooler), then two logits, of which 0 means that B follows A."""

    def __init__(self, width: int):
        super().__init__()
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 2)
        self.apply(init_bert)

    def forward(self, cls: Tensor) -> Tensor:
        """(B, D) -> (B, 2)."""
        return self.classifier(torch.tanh(self.pooler(cls)))


@full_precision
def pair_terms(logits: Tensor, pairs: SentencePairs) -> dict[str, Tensor]:
    """Cross-entropy of logits (B, 2) and the accuracy, over the targets of the global batch; 0 without any."""
    valid = pairs.valid.to(logits.dtype)
    count = all_reduce_mean(valid.sum()).clamp(min=1)
    each = F.cross_entropy(logits, pairs.swapped, reduction="none")
    correct = (logits.detach().argmax(dim=1) == pairs.swapped).to(logits.dtype)
    return {"loss": (each * valid).sum() / count, "accuracy": (correct * valid).sum() / count}
