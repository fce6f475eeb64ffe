"""Whole histories of users, and which item of each is to be predicted from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sslcli.data.storage import Ragged

PAD, MASK, FIRST = 0, 1, 2  # ids of tokens: padding, a hidden item, the first item
Part = Literal["val", "test"]


@dataclass(frozen=True)
class NextItems:
    """U users with their events in time, and the item that is to be predicted of each.

    events: items of each user as ids from FIRST on, int32. train: (U,) int64, how many of the first events are for training. val,
    test: (U,) int64, the place of the item to predict, whose history is all events before it; -1 for users without one. trained:
    (U,) bool, the users whose events training reads. items: the number of all items. users: their names. rule: how events are
    divided, for people."""

    events: Ragged
    train: Tensor
    val: Tensor
    test: Tensor
    trained: Tensor
    items: int
    users: Sequence[str]
    rule: str

    def concat(self, other: NextItems) -> NextItems:
        """These users, then those of `other`, with the same items."""
        tensors = {
            key: torch.cat([getattr(self, key), getattr(other, key)]) for key in ("train", "val", "test", "trained")
        }
        users = [*self.users, *other.users]
        return NextItems(self.events.concat(other.events), **tensors, items=self.items, users=users, rule=self.rule)

    def targets(self, part: Part) -> tuple[Tensor, Tensor]:
        """The users (m,) that have an item to predict, and its place (m,) among their events."""
        places: Tensor = getattr(self, part)
        users = (places >= 0).nonzero()[:, 0]
        return users, places[users]

    def ends(self) -> tuple[Tensor, Tensor]:
        """All users, and the place (U,) after their last event: what comes next is not known."""
        return torch.arange(len(self.events)), self.events.lengths

    def items_at(self, users: Tensor, places: Tensor) -> Tensor:
        """(m,) int64: the ids of the items at places."""
        return self.events.flat[self.events.offsets[users] + places].long()

    def histories(self, users: Tensor, places: Tensor, length: int) -> Tensor:
        """(m, length) int64: the last items before a place, followed by padding."""
        start = (places - length).clamp(min=0)
        x = self.events.gather(users, start, length, PAD).long()
        return x.masked_fill(torch.arange(length) >= (places - start)[:, None], PAD)

    def training(self) -> Ragged:
        """The training events of the users that training reads, users without any left out."""
        users = (self.trained & (self.train > 0)).nonzero()[:, 0]
        return self.first(users, self.train[users])

    def first(self, users: Tensor, counts: Tensor) -> Ragged:
        """The first events of users (m,), so many of each (m,)."""
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = (self.events.offsets[users] - offsets[:-1]).repeat_interleave(counts)
        return Ragged(self.events.flat[torch.arange(len(shift)) + shift], offsets, PAD)
