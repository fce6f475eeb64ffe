from __future__ import annotations

import pytest
import torch

from sslcli.evals.metrics.position_importance import PositionImportance


def test_ranking_equals_the_formula():
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(30, 2, 3, generator=g) * torch.tensor([[1.0, 5.0, 2.0], [0.5, 3.0, 9.0]])
    positions = PositionImportance(list("abcdef"))
    for part in maps.split(7):
        positions.add(part)
    absolute = maps.flatten(1).abs().double()
    mean, error = absolute.mean(dim=0), absolute.std(dim=0) / 30**0.5
    ranking = positions.ranking()
    assert [row["name"] for row in ranking] == list("fbecad")
    for row in ranking:
        i = "abcdef".index(row["name"])
        assert row["importance"] == pytest.approx(float(mean[i]))
        assert row["share"] == pytest.approx(float(mean[i] / mean.sum()))
        assert row["standard_error"] == pytest.approx(float(error[i] / mean.sum()))
    assert sum(row["share"] for row in ranking) == pytest.approx(1)


def test_signs_do_not_cancel():
    positions = PositionImportance(["changes sign", "small"])
    positions.add(torch.tensor([[4.0, 1.0], [-4.0, 1.0]]))
    assert [(row["name"], row["share"]) for row in positions.ranking()] == [("changes sign", 0.8), ("small", 0.2)]


def test_no_importance_at_all():
    positions = PositionImportance(["a", "b"])
    positions.add(torch.zeros(1, 2))
    assert [row["share"] for row in positions.ranking()] == [0, 0]
    assert [row["name"] for row in positions.ranking()] == ["a", "b"]


def test_a_name_for_each_position():
    with pytest.raises(AssertionError):
        PositionImportance(["a", "b"]).add(torch.zeros(1, 3))
