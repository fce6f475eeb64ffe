from __future__ import annotations

import json

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.grid_search import Choice, Grid, choice_notes, search
from sslcli.evals.fit.linear_probe import C_GRID, DEFAULT_C, Standardizer, choose_c
from sslcli.evals.fit.logistic import Logistic
from sslcli.evals.inputs.label_subsets import draw, parse
from sslcli.evals.probe import probe
from tests.evals import toys


def test_probe_metrics_and_protocol(data):
    result = probe(toys.Rows(), data, labels="10/class", seeds=3)
    assert set(result.metrics) == {
        *(
            "ece",
            "ece_uncalibrated",
            "top1",
            "top1_std",
            "raw.top1",
            "raw.top1_std",
            "untrained.top1",
            "untrained.top1_std",
        )
    }
    assert result.metrics["top1"] > 0.9 > result.metrics["untrained.top1"]
    protocol = json.loads(json.dumps(result.protocol))  # plain JSON types
    assert protocol["labels"] == "10/class"
    assert protocol["splits"] == {"train": 240, "labelled": 30, "test": 120}
    assert protocol["seeds"] == len(protocol["strength"]["C"]) == 3
    assert "5 stratified folds" in protocol["strength"]["chosen_by"]
    assert protocol["solver"]["converged"]
    assert protocol["solver"]["grad_norm"] <= 2e-5
    assert set(protocol["baselines"]) == {"raw", "untrained"}
    assert probe(toys.Rows(), data, labels="10/class", seeds=3).metrics == result.metrics


def test_probe_top5_and_confusion():
    data = EvalData(toys.dataset(400, 200, classes=7))
    result = probe(toys.Rows(), data, seeds=2)
    assert result.metrics["top1"] <= result.metrics["top5"] <= 1
    assert "raw.top5" not in result.metrics
    counts = result.artefacts["confusion.png"].counts
    assert counts.sum() == 2 * 200
    assert int(counts.diagonal().sum()) / 400 == pytest.approx(result.metrics["top1"])
    assert any("untrained" in note for note in result.protocol["notes"])  # not requested, which a note reports


def test_probe_equals_the_solver_on_standardized_features(data):
    backbone = toys.Rows()
    (x, y), (x_test, y_test) = data.features(backbone, "train"), data.features(backbone, "test")
    standardise = Standardizer(x)
    ids = draw(y, parse("5/class"), 0, 0)
    fit = Logistic(standardise(x, ids), y[ids], 3).fit(0.1)
    expected = (fit.logits(standardise(x_test, torch.arange(len(x_test)))).argmax(dim=1) == y_test).double().mean()
    result = probe(backbone, data, labels="5/class", strengths=0.1, baselines=False, calibrate=False)
    assert set(result.metrics) == {"top1"}
    assert result.metrics["top1"] == pytest.approx(float(expected))


def test_standardizer_of_known_case():
    x = torch.tensor([[1.0, 5.0, 1.0], [3.0, 5.0, 1.0 + 1e-7]])
    before = x.clone()
    torch.testing.assert_close(Standardizer(x)(x, torch.tensor([1])), torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.equal(x, before)
    many = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-2, 1.0, 50.0, 1e3]) + 100
    torch.testing.assert_close(1 / Standardizer(many).scale, many.std(dim=0, correction=0), rtol=1e-4, atol=0)


def test_probe_fit_ignores_the_test_split(data):
    """With the test labels shuffled the same strengths and weights come out; only the score changes."""
    backbone = toys.Rows()
    honest = probe(backbone, data, labels="20%", seeds=2)
    shuffled = toys.dataset()
    shuffled.test.labels = shuffled.test.labels[torch.randperm(120, generator=torch.manual_seed(0))]
    other = probe(backbone, EvalData(shuffled, untrained=toys.Blind), labels="20%", seeds=2)
    assert other.protocol == honest.protocol
    assert other.metrics["top1"] < 0.6 < honest.metrics["top1"]


def test_choose_c_prefers_generalization():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    noise = torch.randn(60, 400, generator=g)
    noise[torch.arange(60), y] += 2.5
    found = choose_c(noise, y, 3, Grid.of([1e-4, 1e-2, 1e2]), 0, 0)
    assert found.value < 1e2
    assert "5 stratified folds of 60" in found.how
    inside = choose_c(noise, y, 3, C_GRID, 0, 0)  # the grid of the default is not continued
    assert C_GRID.start[0] < inside.value < C_GRID.start[-1]
    assert (set(inside.tried) <= set(C_GRID.start), inside.edge) == (True, "")
    assert choose_c(noise[:5], y[:5], 3, Grid.of([1e-4, 1e2]), 0, 0) == Choice(
        DEFAULT_C, "default: too few labels to choose from"
    )
    big = choose_c(noise.repeat(50, 1), y.repeat(50), 3, Grid.of([1e-4, 1e-2]), 0, 0)
    assert "slice of 600 of 3000" in big.how


def fine_detail(scale: float) -> EvalData:
    """Two classes that differ along one direction of small variance, next to seven directions that are common to all."""
    g = torch.Generator().manual_seed(0)

    def split(n: int) -> ArraySource:
        y = torch.arange(n) % 2
        common = torch.randn(n, 1, generator=g)
        x = common + scale * torch.randn(n, 8, generator=g)
        x[:, 0] += scale * 6 * (y - 0.5)
        return ArraySource(x[:, None], y)

    return EvalData(Dataset("detail", "series", (1, 8), split(60), split(200), ("a", "b")))


def test_grid_search_extends_beyond_the_best_edge():
    """Classes that differ in a millionth of the variance need a weaker penalty than C = 10."""
    data = fine_detail(0.001)
    narrow = probe(torch.nn.Flatten(), data, strengths=[1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0], baselines=False)
    assert narrow.protocol["strength"]["edge"] == ["highest"]
    assert any("evaluator.strengths=null continues" in note for note in narrow.protocol["notes"])
    wide = probe(torch.nn.Flatten(), data, baselines="raw")
    strength = wide.protocol["strength"]
    assert strength["C"][0] > 10
    assert strength["continued_to"][0] == 100
    assert any("continued to 100" in note for note in wide.protocol["notes"])
    assert wide.protocol["baselines"]["raw"]["strength"]["C"][0] > 10  # the baselines, too
    assert wide.metrics["top1"] > narrow.metrics["top1"] + 0.1
    assert wide.metrics["top1"] > 0.97


def test_grid_search_of_known_case():
    grid = Grid((1, 2, 4, 8, 16, 32), first=2, last=3)
    never = lambda scores: False  # noqa: E731

    def peak(at):
        return search(grid, lambda v: (-abs(v - at),), "how", never)

    assert peak(4) == Choice(4, "how", (2, 4, 8), "")  # the lower edge of the start: one more is tried below
    assert peak(8) == Choice(8, "how", (4, 8, 16), "")
    assert peak(100) == Choice(32, "how", (4, 8, 16, 32), "highest")
    assert peak(0) == Choice(1, "how", (1, 2, 4, 8), "lowest")
    flat = search(grid, lambda v: (0.0,), "how", never)  # nothing is gained: the search ends
    assert flat == Choice(4, "how", (4, 8), "")
    up = search(grid, lambda v: (-abs(v - 100),), "how", lambda scores: len(scores) == 2)
    assert up == Choice(8, "how", (4, 8), "")
    assert choice_notes([peak(4)], grid, "x", "k") == ["x: an edge of the grid was best, so it was continued to 2"]
    assert "x = 32 was best and is the highest" in choice_notes([peak(100)], grid, "x", "k")[1]


def test_grid_search_ignores_confidence_alone():
    """Equal accuracy everywhere, and a log loss that falls with the penalty: few labels look like this."""
    grid = Grid(tuple(10.0**e for e in range(-8, 7)), 4, 9)
    found = search(grid, lambda v: (3.0, -v), "how", lambda scores: False)
    assert found.value == 1e-4
    assert min(found.tried) == 1e-4


def test_probe_counts_unseen_classes_as_wrong():
    rows = toys.dataset()
    keep = rows.train.labels != 2
    rows.train = ArraySource(rows.train.x[keep], rows.train.labels[keep])
    result = probe(toys.Rows(), EvalData(rows), baselines=False)
    share = float((rows.test.labels != 2).double().mean())
    assert share - 0.05 < result.metrics["top1"] <= share
    assert result.artefacts["confusion.png"].counts[:, 2].sum() == 0


def test_probe_with_one_label_per_class(data):
    result = probe(toys.Rows(), data, labels="1/class", seeds=3)
    assert result.protocol["strength"]["C"] == [DEFAULT_C] * 3
    assert result.metrics["top1"] > result.metrics["untrained.top1"]


def without(split: str, labels):
    rows = toys.dataset()
    source = getattr(rows, split)
    source.labels = None if labels is None else torch.full_like(source.labels, labels)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("train", None), "no labels in its train split"),
        (without("train", -1), "no labels in its train split"),
        (without("train", 1), "has 1 class"),
        (without("test", -1), "no labels in its test split"),
    ],
)
def test_probe_rejects_unusable_data(rows, message):
    with pytest.raises(DataError, match=message) as error:
        probe(toys.Rows(), EvalData(rows))
    assert error.value.hint


def test_probe_reports_a_missing_test_split_first():
    rows = toys.dataset()
    rows.test = None
    backbone = toys.Rows()
    with pytest.raises(DataError, match="no test split"):
        probe(backbone, EvalData(rows))
    assert backbone.calls == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": 0}, "labels=0"),
        ({"labels": 500}, "only 240"),
        ({"labels": "1000/class"}, "1000/class"),
        ({"labels": "many"}, "not understood"),
        ({"seeds": 0}, "seeds=0"),
        ({"strengths": [-1.0]}, "strengths"),
        ({"strengths": []}, "strengths"),
        ({"strengths": ["a"]}, "strengths"),
        ({"strengths": 0.0}, "strengths"),
    ],
)
def test_probe_rejects_invalid_settings(data, wrong, message):
    with pytest.raises(RequestError, match=message):
        probe(toys.Rows(), data, **wrong)


def test_probe_of_raw_digits_matches_known_accuracy():
    """Raw pixels of digits with ten labels a class: .87 with scikit-learn at C = 0.01 (mean of many draws)."""
    from sslcli.data.public.digits import digits

    data = EvalData(digits())
    identity = torch.nn.Flatten()
    fixed = probe(identity, data, labels="10/class", seeds=20, strengths=[0.01], baselines=False)
    assert fixed.metrics["top1"] == pytest.approx(0.873, abs=0.02)
    chosen = probe(identity, data, labels="10/class", seeds=5)
    assert chosen.metrics["top1"] > fixed.metrics["top1"] - 0.01  # choosing on training labels does not hurt
    assert chosen.metrics["top1"] == pytest.approx(chosen.metrics["raw.top1"], abs=1e-9)
