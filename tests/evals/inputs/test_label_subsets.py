from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcli.errors import DataError, RequestError
from sslcli.evals.fit.linear_probe import C_GRID, choose_c
from sslcli.evals.inputs.label_subsets import check, draw, folds, parse, shares


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all", "all"),
        ("ALL", "all"),
        ("100%", "all"),
        ("1%", "1%"),
        ("0.5%", "0.5%"),
        (100, "100"),
        ("100", "100"),
        ("10/class", "10/class"),
    ],
)
def test_parse_of_every_form(text, said):
    assert str(parse(text)) == said


@pytest.mark.parametrize(
    "text", [0, "0", "0/class", "0%", "101%", "-5", "some", "", "10/klass", 0.1, None, True, "1e3"]
)
def test_parse_rejects_invalid_amounts(text):
    with pytest.raises(RequestError, match="labels=") as error:
        parse(text)
    assert "labels=10/class" in error.value.hint


Y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10 + [-1] * 50)[torch.randperm(150, generator=torch.manual_seed(0))]


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ("all", [60, 30, 10]),
        ("10%", [6, 3, 1]),
        ("50", [30, 15, 5]),
        ("10/class", [10, 10, 10]),
        ("3", [1, 1, 1]),
        ("5", [3, 1, 1]),
        ("100", [60, 30, 10]),
    ],
)
def test_draw_is_stratified(labels, counts):
    for index in range(3):
        ids = draw(Y, parse(labels), 0, index)
        assert Y[ids].bincount().tolist() == counts
        assert len(ids.unique()) == len(ids)
        assert torch.equal(ids, draw(Y, parse(labels), 0, index))


def test_draws_differ_and_cover_all_samples():
    sets = [tuple(draw(Y, parse("3/class"), 0, i).tolist()) for i in range(40)]
    assert len(set(sets)) == 40
    assert draw(Y, parse("3/class"), 1, 0).tolist() != list(sets[0])
    often = torch.bincount(torch.tensor(sets).flatten(), minlength=150)
    tail = often[Y == 2]  # 3 of 10, 40 times: each 12 on average
    assert tail.min() > 2
    assert tail.max() < 25


def test_draw_rejects_unavailable_amounts():
    with pytest.raises(DataError, match=r"too few training samples in cow \(10\)") as error:
        draw(Y, parse("20/class"), 0, 0, ("ant", "bee", "cow"))
    assert error.value.hint.startswith("labels=10/class")
    with pytest.raises(RequestError, match="the largest class has 60"):
        draw(Y, parse("1000/class"), 0, 0)
    with pytest.raises(RequestError, match="only 100 training labels"):
        draw(Y, parse(101), 0, 0)
    with pytest.raises(RequestError, match="fewer than the 3 classes"):
        draw(Y, parse("1%"), 0, 0)


def test_check_requires_labels_and_classes():
    assert check(Y, "train", "toy").tolist() == torch.nonzero(Y >= 0).flatten().tolist()
    with pytest.raises(DataError, match="no labels"):
        check(torch.full((5,), -1), "train", "toy")
    with pytest.raises(DataError, match="1 class"):
        check(torch.zeros(5, dtype=torch.int64), "train", "toy")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.floats(0, 1))
def test_shares_sum_to_the_total(sizes, where):
    total = len(sizes) + round(where * (sum(sizes) - len(sizes)))
    takes = shares(sizes, total)
    assert sum(takes) == total
    assert all(1 <= t <= s for t, s in zip(takes, sizes, strict=True))


def test_folds_are_stratified():
    y = Y[Y >= 0]
    fold = folds(y, 5, 0, 0)
    for f in range(5):
        assert y[fold == f].bincount().tolist() == [12, 6, 2]
    many = folds(torch.arange(100), 5, 0, 0)  # a hundred classes of one
    assert many.bincount().tolist() == [20] * 5


def test_folds_keep_groups_together():
    y = torch.arange(60) // 5 % 3
    groups = torch.arange(60) // 5  # 12 recordings of 5 windows, 4 of each class
    fold = folds(y, 4, 0, 0, groups)
    assert all(len(fold[groups == g].unique()) == 1 for g in range(12))
    assert all((y[fold == f].bincount(minlength=3) == 5).all() for f in range(4))
    assert not torch.equal(fold, folds(y, 4, 1, 0, groups))


def test_one_group_is_no_groups():
    """All labeled samples may be of one recording, where others are the test split: the choices are those without groups."""
    y, one = torch.arange(40) % 2, torch.zeros(40, dtype=torch.int64)
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(folds(y, 5, 0, 0, one), folds(y, 5, 0, 0))
    assert choose_c(x, y, 2, C_GRID, 0, 0, one) == choose_c(x, y, 2, C_GRID, 0, 0)
