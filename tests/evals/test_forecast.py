"""Forecasts: the windows that count, regression against scikit-learn, and simple forecasts against their definitions.

1. A window predicts what follows it in its recording; windows of the validation and test parts may begin before these; all count.
2. Errors are those of a Ridge of scikit-learn on the same rows, with the penalty that is best on the validation part.
3. The last value, the last period and a linear map are what they are called.
4. Nothing but the test part's errors depends on the test part.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from sslcli.data.recordings.forecasts import Forecasts
from sslcli.data.sources.series import series
from sslcli.data.storage import Windowed
from sslcli.data.timeline import split_in_time
from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.forecast import forecast
from sslcli.evals.forecasting.models import WindowInputs, regress

WINDOW, HORIZON = 16, 3


def waves(steps: int = 240, seed: int = 0) -> np.ndarray:
    """(2, steps): a period of 8 steps, with noise and a trend."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    x = np.stack([np.sin(2 * np.pi * t / 8), 3 * np.cos(2 * np.pi * t / 8)]) + 0.01 * t
    return (5 + x + 0.2 * rng.normal(size=x.shape)).astype(np.float32)


class Last(nn.Module):
    """The last four steps of each channel."""

    def forward(self, x):
        return x.nan_to_num(0.0)[:, :, -4:].flatten(1)


def build(tmp_path, x, **settings):
    np.savez(tmp_path / "x.npz", x=x)
    given = {"window": WINDOW, "stride": 4, "time_split": [0.6, 0.2, 0.2], **settings}
    return series(str(tmp_path / "x.npz"), **given)


def test_windows_of_parts_and_recordings():
    found = [torch.arange(40.0)[None], 100 + torch.arange(30.0)[None]]
    forecasts = Forecasts(split_in_time(found, [0.5, 0.25, 0.25], "train"), 6)
    assert forecasts.origins("train", 3).tolist() == [*range(6, 18), *range(46, 53)]
    assert forecasts.origins("val", 3).tolist() == [
        *range(20, 28),
        *range(55, 61),
    ]  # 15 + 8 (rounded) steps of the second one
    assert forecasts.origins("test", 3).tolist() == [*range(30, 38), *range(63, 68)]
    origins = forecasts.origins("test", 3)[-1:]
    assert forecasts.source(origins).read(0).tolist() == [[121, 122, 123, 124, 125, 126]]
    mean, std = np.mean([*range(20), *range(100, 115)]), np.std([*range(20), *range(100, 115)])
    torch.testing.assert_close(
        forecasts.targets(origins, 3) * std + mean,
        torch.tensor([[[127.0, 128.0, 129.0]]]),
        check_dtype=False,
        rtol=1e-5,
        atol=1e-4,
    )


def test_windows_overlap_without_memory():
    flat = torch.arange(20.0)[:, None]
    one = Windowed(flat, torch.arange(0, 16), torch.full((16,), 18), 4)
    assert one.take(torch.tensor([15, 0])).tolist()[1] == [[0, 1, 2, 3]]
    assert [v if v == v else None for v in one[15][0].tolist()] == [15, 16, 17, None]
    assert one.nbytes < 16 * 4 * 4 + 400
    assert torch.equal(one.select(torch.tensor([3, 1])).take(torch.tensor([0])), one.take(torch.tensor([3])))
    assert len(one.concat(one.narrow(2, 4))) == 18
    other = one.concat(Windowed(-flat, torch.tensor([5]), torch.tensor([20]), 4))
    assert other[16].tolist() == [[-5, -6, -7, -8]]
    assert other.to(torch.device("cpu")).sample_shape == (1, 4)


def test_errors_are_those_of_scikit_learn(tmp_path):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x = waves()
    data = EvalData(build(tmp_path, x[None]))
    result = forecast(Last(), data, horizons=[HORIZON], alphas=[0.5, 50.0], relative=False, baselines=False)
    train = x[:, :144]
    scaled = (x - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)

    def rows(first, last):
        at = range(first, last - HORIZON + 1)
        return np.stack([scaled[:, t - 4 : t].reshape(-1) for t in at]), np.stack(
            [scaled[:, t : t + HORIZON].reshape(-1) for t in at]
        )

    (a, b), (a_val, b_val), (a_test, b_test) = rows(WINDOW, 144), rows(144, 192), rows(192, 240)
    scaler = StandardScaler().fit(a)
    fits = [Ridge(alpha).fit(scaler.transform(a), b) for alpha in (0.5, 50.0)]
    best = min(fits, key=lambda fit: ((fit.predict(scaler.transform(a_val)) - b_val) ** 2).mean())
    error = best.predict(scaler.transform(a_test)) - b_test
    assert result.metrics == pytest.approx(
        {f"mse@{HORIZON}": (error**2).mean(), f"mae@{HORIZON}": np.abs(error).mean()}, rel=1e-4
    )
    assert result.protocol["strength"]["chosen"]["backbone"][str(HORIZON)] == {"alpha": best.alpha, "relative": False}
    assert result.protocol["splits"] == {"train": len(a), "validation": len(a_val), "test": 240 - 192 - HORIZON + 1}
    json.dumps(result.protocol)


def test_simple_forecasts_are_what_they_are_called(tmp_path):
    x = waves()
    data = EvalData(build(tmp_path, x[None]), untrained=Last)
    result = forecast(Last(), data, horizons=[HORIZON, 20])
    train = x[:, :144]
    z = (x - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)
    assert result.protocol["period"] == 8
    for h in (HORIZON, 20):
        last, seasonal = [], []
        for t in range(192, 240 - h + 1):
            last.append(z[:, t - 1 : t] - z[:, t : t + h])
            seasonal.append(np.stack([z[:, t - 8 + i % 8] for i in range(h)], axis=1) - z[:, t : t + h])
        for name, parts in (("last", last), ("seasonal", seasonal)):
            assert result.metrics[f"{name}.mse@{h}"] == pytest.approx(np.square(parts).mean(), rel=1e-4)
            assert result.metrics[f"{name}.mae@{h}"] == pytest.approx(np.abs(parts).mean(), rel=1e-4)
        assert result.metrics[f"untrained.mse@{h}"] == result.metrics[f"mse@{h}"]
        assert result.metrics[f"linear.mse@{h}"] < result.metrics[f"last.mse@{h}"]
    table = result.artefacts["errors.csv"].table()
    assert [row[0] for row in table["rows"]] == ["this run", "untrained", "linear", "last", "seasonal"]


def test_linear_map_is_one_of_all_channels_on_changes():
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x = torch.from_numpy(waves())
    forecasts = Forecasts(split_in_time([x], [0.6, 0.2, 0.2], "train"), WINDOW)
    fitted = regress(WindowInputs(forecasts), forecasts, HORIZON, (2.0,))
    z = forecasts.flat.numpy()
    rows = [(c, t) for t in range(WINDOW, 144 - HORIZON + 1) for c in range(2)]
    a = np.stack([z[c, t - WINDOW : t] - z[c, t - 1] for c, t in rows])
    b = np.stack([z[c, t : t + HORIZON] - z[c, t - 1] for c, t in rows])
    scaler = StandardScaler().fit(a)
    model = Ridge(2.0).fit(scaler.transform(a), b)
    new = np.stack([z[c, 200 - WINDOW : 200] - z[c, 199] for c in range(2)])
    expected = model.predict(scaler.transform(new)) + z[:, 199:200]
    np.testing.assert_allclose(fitted.predict(torch.tensor([200]))[0], expected, rtol=1e-3, atol=1e-4)


def test_test_part_changes_its_errors_alone(tmp_path):
    x = waves()
    first = forecast(Last(), EvalData(build(tmp_path, x[None])), horizons=[HORIZON])
    x[:, 200:] += 30
    other = forecast(Last(), EvalData(build(tmp_path, x[None])), horizons=[HORIZON])
    assert other.protocol == first.protocol
    assert other.metrics["mse@3"] > 2 * first.metrics["mse@3"]


@pytest.mark.parametrize("scale", ["train", "sample", "none"])
def test_missing_values_are_left_out(tmp_path, scale):
    x = waves()
    x[0, 50:53] = math.nan
    x[:, 220] = math.nan
    result = forecast(Last(), EvalData(build(tmp_path, x[None], scale=scale)), horizons=[HORIZON])
    assert all(math.isfinite(v) for v in result.metrics.values())
    assert result.protocol["splits"]["test"] == 240 - 192 - HORIZON + 1


def test_default_horizons_are_those_that_fit(tmp_path):
    data = EvalData(build(tmp_path, waves(600)[None]))
    result = forecast(Last(), data, baselines=False)
    assert result.protocol["horizons"] == [24, 48]
    assert any("168, 336, 720" in note for note in result.protocol["notes"])
    noise = np.random.default_rng(0).normal(size=(1, 1, 200)).astype(np.float32)
    result = forecast(Last(), EvalData(build(tmp_path, noise)), horizons=[2])
    assert "seasonal.mse@2" not in result.metrics
    assert any("no seasonal forecast" in note for note in result.protocol["notes"])


def test_bad_requests_for_forecasts(tmp_path):
    data = EvalData(build(tmp_path, waves()[None]))
    for settings, words in (
        ({"horizons": [0]}, "integers of at least 1"),
        ({"alphas": [0.0]}, "values above 0"),
        ({"period": 17, "horizons": [2]}, "expected 1 to 16"),
    ):
        with pytest.raises(RequestError, match=words):
            forecast(Last(), data, **settings)
    with pytest.raises(DataError, match="too short for the horizons"):
        forecast(Last(), data, horizons=[2, 500])
    plain = EvalData(build(tmp_path, waves()[None], time_split=None))
    with pytest.raises(RequestError, match="is not divided in time") as error:
        forecast(Last(), plain)
    assert "dataset.time_split" in error.value.hint


class Channels(Last):
    """The last three standardized steps of each channel."""

    def channel_features(self, x):
        return x.nan_to_num(0.0)[:, :, -3:]


def test_channels_are_predicted_from_their_own_features(tmp_path):
    """Standardized windows: the differences from the mean of the window, by one Ridge of scikit-learn on features times the
    standard deviation of the window, which is a feature itself."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x = waves()
    data = EvalData(build(tmp_path, x[None], scale="sample"))
    result = forecast(Channels(), data, horizons=[HORIZON], alphas=[5.0], baselines=False)
    train = x[:, :144]
    z = (x - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)

    def rows(first, last):
        a, b, means = [], [], []
        for t in range(first, last - HORIZON + 1):
            for c in range(2):
                window = z[c, t - WINDOW : t]
                mean, std = window.mean(), window.std()
                a.append([*(std * ((window[-3:] - mean) / std)), std])
                b.append(z[c, t : t + HORIZON] - mean)
                means.append(mean)
        return np.stack(a), np.stack(b), np.array(means)

    (a, b, _), (a_test, b_test, _) = rows(WINDOW, 144), rows(192, 240)
    scaler = StandardScaler().fit(a)
    error = Ridge(5.0).fit(scaler.transform(a), b).predict(scaler.transform(a_test)) - b_test
    expected = {f"mse@{HORIZON}": (error**2).mean(), f"mae@{HORIZON}": np.abs(error).mean()}
    assert result.metrics == pytest.approx(expected, rel=1e-3)
    assert result.protocol["dim"] == 3
    assert result.protocol["channels"].startswith("each from its own")


def test_features_of_channels_that_need_too_much_memory_are_refused(tmp_path, monkeypatch):
    from sslcli.evals import forecast as module

    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="GiB of memory") as error:
        forecast(Channels(), EvalData(build(tmp_path, waves()[None])), horizons=[HORIZON], baselines=False)
    assert "backbone.patch" in error.value.hint
