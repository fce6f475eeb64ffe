"""Label-free numbers on features whose answer is known."""

from __future__ import annotations

import pytest
import torch

from sslcli.data.source import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.features import EvalData
from sslcli.evals.quality import alpha_req, online, quality, rankme
from tests.evals import toys


def test_rankme():
    assert rankme(torch.eye(16)) == pytest.approx(16, rel=1e-4)
    assert rankme(torch.eye(16).repeat(10, 1)) == pytest.approx(16, rel=1e-4)
    assert rankme(torch.ones(50, 1) @ torch.randn(1, 8)) == pytest.approx(1, abs=2e-3)
    assert rankme(torch.zeros(5, 3)) == 1.0
    two = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert rankme(two) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)
    x = torch.randn(300, 20, generator=torch.manual_seed(0))
    s = torch.linalg.svdvals(x.double())
    s = s / s.sum() + 1e-7
    assert rankme(x) == pytest.approx(float((-(s * s.log()).sum()).exp()), rel=1e-9)
    rotation = torch.linalg.qr(torch.randn(20, 20)).Q
    assert rankme(7 * x @ rotation) == pytest.approx(rankme(x), rel=1e-5)
    assert rankme(x[:10]) <= 10 + 1e-4  # fewer samples than features


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req(alpha):
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.cat([torch.ones(200, 1), torch.randn(200, 30, generator=g)], dim=1).double()).Q[:, 1:]
    values = torch.arange(1, 31, dtype=torch.float64) ** -alpha  # orthogonal to ones: centred already
    assert alpha_req(basis * values.sqrt() + 3.0) == pytest.approx(alpha, rel=1e-6)
    assert alpha_req(torch.zeros(5, 3)) == float("inf")


def test_quality_reads_no_label(data):
    rows = data.dataset
    rows.train.labels = None
    rows.test = None
    result = quality(toys.Rows(), EvalData(rows, untrained=toys.Blind))
    assert set(result.numbers) == {
        f"{kind}{name}" for kind in ("", "untrained.") for name in ("rankme", "alpha_req", "spread")
    }
    assert result.numbers["rankme"] > result.numbers["untrained.rankme"] == pytest.approx(1, abs=0.01)
    assert result.protocol["samples"] == 240
    assert quality(toys.Rows(), EvalData(rows), samples=50).protocol["samples"] == 50
    with pytest.raises(RequestError, match="samples=1"):
        quality(toys.Rows(), EvalData(rows), samples=1)


class Poisoned(ArraySource):
    """A split that must not be read."""

    @property
    def resident(self):
        raise AssertionError("the test split was read")


def test_online_stays_in_the_training_split():
    rows = toys.dataset()
    rows.test = Poisoned(rows.test.x, rows.test.labels)
    backbone = toys.Rows().train()
    numbers = online(backbone, rows)
    assert set(numbers) == {"knn/top1", "spread", "rankme"}
    assert numbers["knn/top1"] > 0.85
    assert backbone.training
    assert online(backbone, rows) == numbers
    assert online(toys.Blind(), rows)["knn/top1"] < numbers["knn/top1"]


def test_online_is_the_slow_way():
    rows = toys.dataset(100)
    seen = []

    class Spy(toys.Rows):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    online(Spy(), rows, bank=30, queries=10)
    assert sum(seen) == 40


def test_online_counts_only_labelled_samples_and_works_without():
    rows = toys.dataset()
    rows.train.labels[::2] = -1
    assert online(toys.Rows(), rows)["knn/top1"] > 0.85
    rows.train.labels = None
    assert set(online(toys.Rows(), rows)) == {"spread", "rankme"}


def test_a_backbone_that_collapsed_is_visible():
    class Constant(toys.Rows):
        def forward(self, x):
            return torch.ones(len(x), 8)

    numbers = online(Constant(), toys.dataset())
    assert numbers["spread"] == pytest.approx(0, abs=1e-6)
    assert numbers["rankme"] == pytest.approx(1, abs=1e-2)


def test_series_go_the_same_way():
    g = torch.Generator().manual_seed(0)
    source = ArraySource(torch.randn(60, 2, 50, generator=g), torch.arange(60) % 2)
    series = Dataset("s", "series", (2, 50), source, source, ("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0))
    data = EvalData(series)
    assert data.raw("train")[0].shape == (60, 100)
    assert set(online(torch.nn.Flatten(), series)) == {"knn/top1", "spread", "rankme"}
