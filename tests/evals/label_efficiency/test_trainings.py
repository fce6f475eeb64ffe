"""Trained networks of a label-efficiency curve: draws of labels one after the other, as many as a budget of time allows."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from sslcli.errors import RequestError
from sslcli.evals import labels
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.inputs.label_subsets import parse
from sslcli.evals.label_efficiency import trainings
from sslcli.evals.label_efficiency.points import CurvePoints
from sslcli.evals.label_efficiency.trainings import joined_protocol, parse_budget, train_points
from tests.evals import learners

STEPS = [SimpleNamespace(amount=parse("1/class")), SimpleNamespace(amount=parse("all"))]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains with a budget, on a clock by which each training takes 50 s: accuracies by step and draw, notes, and the trainings."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(trainings, "time", SimpleNamespace(monotonic=lambda: clock.now))
    net = learners.Net(5)

    def train_with(budget, draws=3):
        order = []

        def train(amount, draw, recipe, start):
            clock.now += 50
            order.append((str(amount), draw))
            return {"top1": draw / 10 + len(str(amount)) / 100}

        data = EvalData(
            learners.dataset(12, 12), untrained=learners.Net, recipes={"weak": {}}, cache=tmp_path / "cache"
        )
        points = CurvePoints(net, data)
        found, notes = train_points(points, "supervised", "scratch", STEPS, draws, Recipe(), train, budget)
        return [[point["top1"] for point in of_step] for of_step in found], notes, order

    return train_with


def test_each_number_of_labels_has_a_draw_before_any_has_two(trained):
    found, notes, order = trained(math.inf, draws=2)
    assert order == [("1/class", 0), ("all", 0), ("1/class", 1), ("all", 1)]
    assert found == [[pytest.approx(0.07), pytest.approx(0.17)], [pytest.approx(0.03), pytest.approx(0.13)]]
    assert notes == []


def test_a_budget_limits_the_draws_and_the_same_command_adds_some(trained, capsys):
    found, notes, order = trained(10)  # the first draw alone takes 100 s
    assert [len(of_step) for of_step in found] == [1, 1]
    assert len(order) == 2
    assert notes == [
        "supervised: 1 of 3 draws were trained within evaluator.budget (10s); the same command adds draws, and "
        "evaluator.budget=null trains all"
    ]
    assert notes[0] in capsys.readouterr().err
    found, notes, order = trained(10)
    assert order == [("1/class", 1), ("all", 1)]
    assert notes[0].startswith("supervised: 2 of 3 draws")
    found, notes, order = trained(10)
    assert ([len(of_step) for of_step in found], notes, len(order)) == ([3, 3], [], 2)
    assert trained(10)[2] == []


@pytest.mark.parametrize(("budget", "draws"), [(199, 1), (200, 2), (300, 3)])
def test_a_draw_begins_only_if_it_is_likely_to_end_in_time(trained, budget, draws):
    assert [len(of_step) for of_step in trained(budget)[0]] == [draws, draws]


def test_protocols_of_draws_are_joined():
    of_draws = [{"protocol": {"steps": 5, "lr": {"used": [lr], "edge": ["no"], "grid": [lr]}}} for lr in (0.1, 0.2)]
    assert joined_protocol(of_draws) == {"steps": 5, "lr": {"used": [0.1, 0.2], "edge": ["no", "no"], "grid": [0.2]}}


def test_budget_is_a_duration():
    assert parse_budget("1m30s") == 90
    assert parse_budget(None) == math.inf
    with pytest.raises(RequestError, match=r"evaluator\.budget: expected a duration, got 'soon'"):
        labels.curve(learners.Net(5), learners.data(), budget="soon")
