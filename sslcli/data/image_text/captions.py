"""Captions of samples: any number of texts for each, as ids of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.storage import Ragged
from sslcli.rng import Draw


class Captions:
    """The captions of n samples, at least one of each.

    texts: m captions, ids (L,) int32 of different lengths without [CLS], [SEP] and padding. first: (n + 1,) int64 on the same
    device: sample i has the captions first[i]..first[i + 1] - 1."""

    def __init__(self, texts: Ragged, first: Tensor):
        assert first.dtype == torch.int64, first.dtype
        assert len(texts) == int(first[-1]), (len(texts), first[-1])
        assert bool((first.diff() > 0).all()), "a sample without a caption"
        self.texts, self.first = texts, first

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def counts(self) -> Tensor:
        """(n,) int64: the number of captions of each sample."""
        return self.first.diff()

    @property
    def owners(self) -> Tensor:
        """(m,) int64: the sample of each caption."""
        return torch.arange(len(self), device=self.first.device).repeat_interleave(self.counts)

    def of(self, sample: int) -> list[Tensor]:
        """The captions of one sample, (L,) int32 each."""
        return [self.texts[i] for i in range(int(self.first[sample]), int(self.first[sample + 1]))]

    def select(self, ids: Tensor) -> Captions:
        """Those of the samples `ids` (k,) int64, in that order."""
        counts = self.counts[ids]
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = (self.first[ids] - first[:-1]).repeat_interleave(counts)
        return Captions(self.texts.select(torch.arange(len(shift), device=shift.device) + shift), first)

    def concat(self, other: Captions) -> Captions:
        return Captions(self.texts.concat(other.texts), torch.cat([self.first, other.first[1:] + int(self.first[-1])]))

    def to(self, device: torch.device) -> Captions:
        return Captions(self.texts.to(device), self.first.to(device))

    def draw(self, draw: Draw) -> Tensor:
        """The number (B,) int64 of one caption of each sample of a batch, uniform, another one in each epoch."""
        first, count = self.first[draw.ids], self.first[draw.ids + 1] - self.first[draw.ids]
        place = (draw.uniform("caption") * count).long()
        return first + torch.minimum(place, count - 1)


def join_captions(texts: Ragged, counts: Sequence[int]) -> Captions:
    """Captions that are ordered by their samples, of which sample i has `counts[i]`."""
    return Captions(texts, torch.tensor([0, *counts], dtype=torch.int64).cumsum(0))
