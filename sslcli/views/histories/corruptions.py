"""Corruptions of histories: functions of clean views (B, L), a severity 0..4 and a generator for each user. See `corruption.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.data.histories.next_items import FIRST, PAD
from sslcli.nn.values import Tokens
from sslcli.views.corruption import Corruption, Generators, uniform
from sslcli.views.texts.ops import compact

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the items


def corruptions(values: Tokens) -> Mapping[str, Corruption]:
    """By name."""

    def dropped(x: Tensor, s: int, generators: Generators) -> Tensor:
        """5 .. 50 % of the items left out; the latest one stays."""
        u = uniform(x, generators)
        later = torch.cat([x[:, 1:], x.new_full((len(x), 1), PAD)], dim=1)
        return compact(x, (u < SHARES[s]) & (later != PAD), PAD)

    def replaced(x: Tensor, s: int, generators: Generators) -> Tensor:
        """5 .. 50 % of the items replaced by others, as if someone else used the account."""
        u = uniform(x, generators)
        other = FIRST + (u / SHARES[s] * (values.size - FIRST)).long().clamp(max=values.size - FIRST - 1)
        return torch.where((u < SHARES[s]) & (x >= FIRST), other, x)

    def swapped(x: Tensor, s: int, generators: Generators) -> Tensor:
        """5 .. 50 % of the items exchanged with the next one."""
        out, u = x.clone(), uniform(x, generators)
        for i in range(x.shape[1] - 1):
            both = (u[:, i] < SHARES[s]) & (out[:, i + 1] != PAD)
            pair = out[:, i : i + 2].clone()
            out[:, i : i + 2] = torch.where(both[:, None], pair.flip(1), pair)
        return out

    return {"dropped": dropped, "replaced": replaced, "swapped": swapped}
