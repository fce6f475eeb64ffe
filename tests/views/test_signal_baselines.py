"""Baselines of series against slow implementations by their definitions, and against published accuracies.

1. Distances under dynamic time warping are those of the recursion, for any lengths, channels and bands.
2. MiniROCKET's features are shares of direct convolutions above the biases; dilations and quantiles are those of the paper.
3. Gaps are interpolated, and padding becomes a length.
4. Accuracies on GunPoint are those of the archive; they do not depend on which samples were seen before.
5. A baseline that would take too long is left out with a note.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.recordings.gaps import fill_gaps
from sslcli.evals.base.features import EvalData
from sslcli.evals.probe import probe
from sslcli.nn.values import Continuous
from sslcli.views.modality import modality
from sslcli.views.signals import baselines as module
from sslcli.views.signals.dtw import dtw_distances
from sslcli.views.signals.minirocket import DIM, MiniRocket, dilations, quantiles

SERIES = modality("series")


def slow_dtw(a: np.ndarray, b: np.ndarray, radius: int | None) -> float:
    """a (C, n), b (C, m): the recursion of Sakoe and Chiba, cell by cell."""
    n, m = a.shape[1], b.shape[1]
    d = np.full((n + 1, m + 1), np.inf)
    d[0, 0] = 0
    for i, j in itertools.product(range(n), range(m)):
        if radius is None or abs(i - j) <= radius + abs(n - m):
            cost = ((a[:, i].astype(float) - b[:, j]) ** 2).sum()
            d[i + 1, j + 1] = cost + min(d[i, j + 1], d[i + 1, j], d[i, j])
    return float(d[n, m])


def pad(parts: list[np.ndarray], to: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.full((len(parts), len(parts[0]), to), 7.0)  # what follows the end must not matter
    for row, part in zip(x, parts, strict=True):
        row[:, : part.shape[1]] = torch.from_numpy(part)
    return x, torch.tensor([part.shape[1] for part in parts])


@pytest.mark.parametrize("radius", [None, 0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_dtw_is_the_recursion(radius, channels, monkeypatch):
    rng = np.random.default_rng(channels)
    a = [rng.normal(size=(channels, n)).astype(np.float32) for n in (9, 4, 1, 12, 9)]
    b = [rng.normal(size=(channels, n)).astype(np.float32) for n in (5, 12, 7)]
    expected = [[slow_dtw(x, y, radius) for y in b] for x in a]
    for block in (1, 60, 1 << 17):
        monkeypatch.setattr("sslcli.views.signals.dtw.BLOCK", block)
        found = dtw_distances(*pad(a, 14), *pad(b, 12), radius)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def slow_feature(x: np.ndarray, kernel: int, dilation: int, padded: bool, channels: list[int], bias: float) -> float:
    """x (C, n), by the definition: the share of positions whose weighted sum of nine dilated values exceeds the bias."""
    weights = np.full(9, -1.0)
    weights[list(list(itertools.combinations(range(9), 3))[kernel])] = 2
    reach, n = 4 * dilation, x.shape[1]
    values = []
    for t in range(n):
        if padded or reach <= t < n - reach:
            taps = [t + (j - 4) * dilation for j in range(9)]
            values.append(sum(w * x[c, i] for c in channels for w, i in zip(weights, taps, strict=True) if 0 <= i < n))
    return float(np.mean(np.array(values) > bias)) if values else 0.0


@pytest.mark.parametrize("channels", [1, 4])
def test_minirocket_is_its_definition(channels, monkeypatch):
    monkeypatch.setattr("sslcli.views.signals.minirocket.BLOCK", 100)
    rng = np.random.default_rng(channels)
    parts = [rng.normal(size=(channels, n)).astype(np.float32) for n in (40, 23, 40, 6)]
    x, steps = pad(parts, 40)
    model = MiniRocket(x, steps, seed=1)
    features = model.transform(x, steps)
    assert features.shape == (4, DIM)
    column = 0
    for layer in model.layers:
        number = layer.biases.shape[1]
        for k in (0, 5, 83):
            for i in range(0, number, 7):
                bias = float(layer.biases[k, i])
                found = features[:, column + k * number + i].tolist()
                for part, share in zip(
                    parts, found, strict=True
                ):  # values that equal the bias but for rounding count either way
                    low, high = (
                        slow_feature(part, k, layer.dilation, layer.padded[k], layer.channels[k], bias + shift)
                        for shift in (1e-4, -1e-4)
                    )
                    assert low - 1e-6 <= share <= high + 1e-6
        column += 84 * number
    assert column == DIM
    if channels > 1:
        sizes = [len(c) for layer in model.layers for c in layer.channels]
        assert (min(sizes), max(sizes)) == (1, 4)


def test_minirocket_dilations_and_quantiles():
    found = dilations(150)
    assert sum(found.values()) == 119
    assert (min(found), max(found)) == (1, 18)  # 2 ** log2(149 / 8) = 18.6
    assert dilations(5) == {1: 119}
    golden = (1 + math.sqrt(5)) / 2
    assert quantiles(3).tolist() == pytest.approx([golden % 1, 2 * golden % 1, 3 * golden % 1])


def test_gaps_are_interpolated():
    nan = math.nan
    x = torch.tensor([[[nan, 1.0, nan, nan, 4.0, nan], [nan] * 6], [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6]])
    filled, steps = fill_gaps(x)
    assert steps.tolist() == [5, 6]
    assert filled[0].tolist() == [[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [0.0] * 6]
    assert torch.equal(filled[1], x[1])


def waves(n: int, missing: bool = False) -> ArraySource:
    """Fast and slow waves with random phases, one after the other."""
    g = torch.Generator().manual_seed(n)
    y = torch.arange(n) % 2
    phase = 6.3 * torch.rand(n, 1, generator=g)
    x = torch.sin(torch.linspace(0, 12, 40) * (1 + y[:, None]) + phase) + 0.1 * torch.randn(n, 40, generator=g)
    if missing:
        x[:, 30:][::3] = math.nan
        x[:, 5:8] = math.nan
    return ArraySource(5 + 2 * x[:, None], y, targets={"value": (1.0 + y).double()})


def wave_data(missing: bool = False, task: str = "classes") -> Dataset:
    train, test = waves(40, missing), waves(30, missing)
    classes = ("slow", "fast") if task == "classes" else ()
    return Dataset("waves", "series", (1, 40), train, test, classes, task, values=Continuous((5.0,), (1.4,)))


@pytest.mark.parametrize("missing", [False, True])
def test_baselines_recognize_waves(missing):
    data = EvalData(wave_data(missing))
    result = probe(torch.nn.Sequential(torch.nn.Flatten(), Zero()), data, labels="10/class", seeds=2, calibrate=False)
    for name in ("dtw", "minirocket"):
        assert result.metrics[f"{name}.top1"] > 0.9, (name, result.metrics)
        assert result.metrics[f"{name}.auroc"] > 0.95
        assert result.protocol["baselines"][name]["note"]
    assert "any warping" in result.protocol["baselines"]["dtw"]["note"]


class Zero(torch.nn.Module):
    def forward(self, x):
        return x.nan_to_num(0.0)


def test_baselines_predict_values():
    data = wave_data(task="value")
    (x, y), x_test = (clean(data.train), data.train.targets["value"]), clean(data.test)
    for name, baseline in SERIES.baselines(data).items():
        error = (baseline.fit(x, y, 0)(x_test) - data.test.targets["value"]).abs().mean()
        assert error < 0.2, name
        assert baseline.fit(x[:1], y[:1], 0)(x_test).shape == (30,), name


def clean(source: ArraySource) -> torch.Tensor:
    return (source.x - 5.0) / 1.4


def test_baselines_do_not_depend_on_earlier_fits():
    data = wave_data()
    x, y, x_test = clean(data.train), data.train.labels, clean(data.test)
    for name in ("dtw", "minirocket"):
        kept, fresh = SERIES.baselines(data)[name], SERIES.baselines(data)[name]
        kept.fit(x[:20], y[:20], 0)(x_test[:7])
        torch.testing.assert_close(kept.fit(x, y, 3)(x_test), fresh.fit(x, y, 3)(x_test))


def test_expensive_baselines_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "MAX_CELLS", 20 * 30 * 40 * 20)
    monkeypatch.setattr(module, "MAX_ROWS", 30)
    data = EvalData(wave_data())
    assert "at most 4 steps" in SERIES.baselines(data.dataset)["dtw"].note  # a band of a tenth instead of 40 x 40
    few = probe(torch.nn.Flatten(), data, labels="5/class", baselines=True, calibrate=False)
    assert {"dtw.top1", "minirocket.top1"} <= set(few.metrics)
    whole = probe(torch.nn.Flatten(), data, baselines=True, calibrate=False)
    assert "minirocket.top1" not in whole.metrics
    assert "dtw.top1" in whole.metrics
    assert any("minirocket is left out: 40 labeled" in note for note in whole.protocol["notes"])
    monkeypatch.setattr(module, "MAX_CELLS", 1)
    none = probe(torch.nn.Flatten(), EvalData(wave_data()), baselines=True, calibrate=False)
    assert "dtw.top1" not in none.metrics
    assert any("dtw is left out: 40 x 30 pairs" in note for note in none.protocol["notes"])


def test_baselines_reach_published_accuracies(test_data):
    """UCR archive: 1-NN DTW with any warping has an error of .0933 on GunPoint; MiniROCKET's paper has an accuracy of .993."""
    from sslcli.data.sources.series import series

    data = series(path=str(test_data / "timeseries" / "GunPoint.npz"))
    views = [s.x for s in (data.train, data.test)]  # close to a mean of 0 and a standard deviation of 1
    for name, accuracy in (("dtw", 0.9067), ("minirocket", 0.9933)):
        p = SERIES.baselines(data)[name].fit(views[0], data.train.labels, 0)(views[1])
        assert float((p.argmax(1) == data.test.labels).double().mean()) == pytest.approx(accuracy, abs=1e-3), name
