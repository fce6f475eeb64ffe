from __future__ import annotations

import torch

from sslcli.data.dataset import ArraySource
from sslcli.data.subset import Concat, Subset


def make_source(*values: float) -> ArraySource:
    y = torch.tensor(values, dtype=torch.float64)
    return ArraySource(torch.zeros(len(y), 1, 4), targets={"value": y})


def test_subset_keeps_targets_in_its_order():
    part = Subset(make_source(1, 2, 3), torch.tensor([2, 0]))
    assert part.targets["value"].tolist() == [3, 1]


def test_concat_joins_targets_of_both_sources():
    both = Concat(make_source(1, 2), make_source(3))
    assert both.targets["value"].tolist() == [1, 2, 3]


def test_concat_drops_targets_of_one_source():
    assert Concat(make_source(1), ArraySource(torch.zeros(1, 1, 4))).targets == {}
