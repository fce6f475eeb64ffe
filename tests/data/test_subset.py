from __future__ import annotations

from dataclasses import replace

import torch

from sslcli.data.dataset import ArraySource
from sslcli.data.inspect import inspect
from sslcli.data.sources.image_folder import image_folder
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


def test_bytes_in_files_are_those_of_the_chosen_samples(make_folder):
    whole = image_folder(str(make_folder({"a": 8, "b": 8})), holdout=0, resident=False)
    ids = torch.tensor([1, 3, 9])
    part, rest = Subset(whole.train, ids), Subset(whole.train, torch.tensor([0, 2]))
    sizes = list(whole.train.sizes)
    found = inspect(replace(whole, train=part))["splits"]["train"]["bytes"]
    assert found == sizes[1] + sizes[3] + sizes[9] > 0
    both = inspect(replace(whole, train=Concat(part, rest)))["splits"]["train"]["bytes"]
    assert both == found + sizes[0] + sizes[2]
