from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcli.data.split import split
from sslcli.errors import DataError, RequestError


def partition(kept, held, n):
    return sorted(kept.tolist() + held.tolist()) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=2, max_size=80), st.floats(0, 0.9), st.integers(0, 5))
def test_stratified_partition(labels, fraction, seed):
    y = torch.tensor(labels)
    kept, held = split(len(y), fraction, seed, y)
    assert partition(kept, held, len(y))
    assert not (y[held] < 0).any() or not (y >= 0).any()
    for c in y[y >= 0].unique().tolist():  # each class keeps one in train, and gives its share within one
        of_class, out = int((y == c).sum()), int((y[held] == c).sum())
        assert out <= of_class - 1
        assert abs(out - fraction * of_class) < 1 + (out == of_class - 1)


def test_same_seed_same_split_other_seed_another():
    y = torch.arange(500) % 7
    first, again, other = (split(500, 0.2, seed, y)[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == math.ceil(0.2 * 500)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=60).filter(lambda g: len(set(g)) > 1), st.integers(0, 3))
def test_groups_are_never_divided(groups, seed):
    kept, held = split(len(groups), 0.3, seed, groups=[f"g{g}" for g in groups])
    assert partition(kept, held, len(groups))
    assert len(kept)
    assert len(held)
    assert not {groups[i] for i in kept.tolist()} & {groups[i] for i in held.tolist()}


def test_group_split_keeps_all_classes_in_train():
    # group g3 alone has class 2: it must not be held out
    groups = ["g0"] * 4 + ["g1"] * 4 + ["g2"] * 4 + ["g3"] * 4
    y = torch.tensor([0, 0, 1, 1] * 3 + [2, 2, 0, 1])
    for seed in range(6):
        kept, _ = split(16, 0.25, seed, y, groups)
        assert set(y[kept].tolist()) == {0, 1, 2}


def test_one_group_cannot_be_divided():
    with pytest.raises(DataError, match="one group"):
        split(10, 0.2, groups=["a"] * 10)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0])
def test_fraction_outside(fraction):
    with pytest.raises(RequestError, match="holdout"):
        split(10, fraction)


def test_nothing_held_out():
    assert len(split(10, 0.0)[1]) == 0
    assert len(split(1, 0.5)[1]) == 0


def test_auto_holdout_requires_two_classes():
    y = torch.arange(50) % 5
    assert torch.equal(split(50, "auto", 3, y)[1], split(50, 0.2, 3, y)[1])
    for labels in (None, torch.full((50,), -1), torch.zeros(50, dtype=torch.int64)):
        assert len(split(50, "auto", 3, labels)[1]) == 0
    with pytest.raises(RequestError, match="got much"):
        split(50, "much")


def test_auto_counts_labelled_samples_in_groups():
    """90 of 100 samples have no label: a fifth of the ten that have one is held out, not two groups of any kind."""
    y = torch.full((100,), -1)
    y[:10] = torch.arange(10) % 2
    groups = [*(i // 2 for i in range(10)), *(5 + i // 10 for i in range(90))]
    _, held = split(100, "auto", 0, y, groups)
    assert int((y[held] >= 0).sum()) == 2
