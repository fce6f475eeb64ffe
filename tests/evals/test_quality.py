"""Label-free metrics on features with known values."""

from __future__ import annotations

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.metrics.geometry import alignment, lidar
from sslcli.evals.online import online
from sslcli.evals.quality import quality
from sslcli.nn.values import Continuous
from sslcli.rng import derive, order
from tests.evals import toys

CLEAN = {"rankme", "alpha_req", "spread", "learnability", "intrinsic_dim"}
VIEWED = {"lidar", "alignment", "uniformity"}
NOISE = {"global": {"random_intensity": {"strength": 0.4}, "noise": {"sigma": 0.1}}}


def test_quality_reads_no_label(data):
    rows = data.dataset
    labeled = quality(toys.Rows(), EvalData(rows, untrained=toys.Blind))
    rows.train.labels = None
    rows.test = None
    result = quality(toys.Rows(), EvalData(rows, untrained=toys.Blind))
    assert result.metrics == labeled.metrics
    assert set(result.metrics) == {f"{kind}{name}" for kind in ("", "untrained.") for name in CLEAN}
    assert result.metrics["rankme"] > result.metrics["untrained.rankme"] == pytest.approx(1, abs=0.01)
    assert (result.protocol["samples"], result.protocol["points"], result.protocol["dim"]) == (240, 240, 8)
    assert any("no lidar" in note for note in result.protocol["notes"])


def test_quality_checks_settings_first(data):
    for settings, says in (
        ({"samples": 1}, "samples=1"),
        ({"points": 3}, "points=3"),
        ({"groups": 1}, "groups=1"),
        ({"views": 1}, "views=1"),
        ({"delta": 0.0}, "delta=0.0"),
    ):
        with pytest.raises(RequestError, match=says):
            quality(toys.Rows(), data, **settings)


def test_quality_on_a_subset_of_the_samples():
    protocol = quality(toys.Rows(), EvalData(toys.dataset()), samples=50, points=30).protocol
    assert (protocol["samples"], protocol["points"]) == (50, 30)
    few = quality(toys.Rows(), EvalData(toys.dataset(15)))
    assert set(few.metrics) == {"rankme", "alpha_req", "spread"}
    assert any("too few" in note for note in few.protocol["notes"])


def test_quality_protocol_describes_views():
    data = EvalData(toys.dataset(), recipes=NOISE, seed=3)
    result = quality(toys.Rows(), data, groups=40, views=4)
    assert set(result.metrics) == CLEAN | VIEWED
    assert (result.protocol["groups"], result.protocol["views"]) == (40, 4)
    ids = order(derive(3, "quality"), 0, 240)[:40]
    z, _ = data.augmented(toys.Rows(), ids, 4)
    assert result.metrics["lidar"] == pytest.approx(lidar(z))
    assert result.metrics["alignment"] == pytest.approx(alignment(z[:, 0], z[:, 1]))
    again = quality(toys.Rows(), EvalData(toys.dataset(), recipes=NOISE, seed=3), groups=40, views=4)
    assert again.metrics == result.metrics
    other = quality(toys.Rows(), EvalData(toys.dataset(), recipes=NOISE, seed=4), groups=40, views=4)
    assert other.metrics["lidar"] != result.metrics["lidar"]
    both = quality(toys.Rows(), EvalData(toys.dataset(), recipes=NOISE, untrained=toys.Blind), groups=40, views=4)
    assert both.metrics["lidar"] > both.metrics["untrained.lidar"]


@pytest.mark.parametrize("recipes", [None, {}, {"global": {}}, {"local": {"noise": {"sigma": 0.1}}}])
def test_quality_without_views_omits_view_metrics(recipes):
    result = quality(toys.Rows(), EvalData(toys.dataset(), recipes=recipes))
    assert set(result.metrics) == CLEAN
    assert any("no lidar, alignment and uniformity" in note for note in result.protocol["notes"])


class Poisoned(ArraySource):
    """A split that must not be read."""

    @property
    def resident(self):
        raise AssertionError("the test split was read")


def test_online_uses_the_training_split_only():
    rows = toys.dataset()
    rows.test = Poisoned(rows.test.x, rows.test.labels)
    backbone = toys.Rows().train()
    metrics = online(backbone, rows)
    assert set(metrics) == {"knn/top1", "spread", "rankme"}
    assert metrics["knn/top1"] > 0.85
    assert backbone.training
    assert online(backbone, rows) == metrics
    assert online(toys.Blind(), rows)["knn/top1"] < metrics["knn/top1"]


def test_online_matches_a_direct_computation():
    rows = toys.dataset(100)
    seen = []

    class Spy(toys.Rows):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    online(Spy(), rows, bank=30, queries=10)
    assert sum(seen) == 40


def test_online_counts_labeled_samples_only():
    rows = toys.dataset()
    rows.train.labels[::2] = -1
    assert online(toys.Rows(), rows)["knn/top1"] > 0.85
    rows.train.labels = None
    assert set(online(toys.Rows(), rows)) == {"spread", "rankme"}


def test_quality_shows_a_collapsed_backbone():
    class Constant(toys.Rows):
        def forward(self, x):
            return torch.ones(len(x), 8)

    metrics = online(Constant(), toys.dataset())
    assert metrics["spread"] == pytest.approx(0, abs=1e-6)
    assert metrics["rankme"] == pytest.approx(1, abs=1e-2)


def test_quality_of_time_series():
    g = torch.Generator().manual_seed(0)
    source = ArraySource(torch.randn(60, 2, 50, generator=g), torch.arange(60) % 2)
    series = Dataset("s", "series", (2, 50), source, source, ("a", "b"), values=Continuous((0.0, 0.0), (1.0, 1.0)))
    data = EvalData(series)
    assert data.raw("train")[0].shape == (60, 100)
    assert set(online(torch.nn.Flatten(), series)) == {"knn/top1", "spread", "rankme"}
