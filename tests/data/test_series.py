from __future__ import annotations

import numpy as np
import pytest
import torch

from sslcli.api import load
from sslcli.backbones.tcn import TCN
from sslcli.data.sources.series import series
from sslcli.data.split import split
from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.linear_probe import fit_linear_probe
from sslcli.evals.inputs.label_subsets import parse
from sslcli.evals.online import _by_group, online
from sslcli.evals.probe import probe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 2, 30)).astype(np.float32)
Y = np.arange(24) % 3


def say(d) -> str:
    return "\n".join(d.notes)


def build(tmp_path, *, settings=None, **entries):
    np.savez(tmp_path / "s.npz", **entries)
    return series(str(tmp_path / "s.npz"), **(settings or {}))


def test_plain(tmp_path):
    d = build(tmp_path, x=X, y=Y)
    assert (d.modality, d.shape, len(d.train), len(d.test)) == ("series", (2, 30), 19, 5)
    assert d.train.resident.tensor.dtype == torch.float32
    assert d.classes == ("0", "1", "2")
    x = d.train.resident.tensor.double()
    assert np.allclose(d.values.mean, x.mean((0, 2)).tolist(), atol=1e-9)
    assert np.allclose(d.values.std, x.std((0, 2), correction=0).tolist(), atol=1e-9)
    assert build(tmp_path, x=X[:, 0], y=Y).shape == (1, 30)
    assert build(tmp_path, x=X.transpose(0, 2, 1), settings={"layout": "ntc"}).shape == (2, 30)
    assert "dataset.layout=ntc" in say(build(tmp_path, x=X.transpose(0, 2, 1)))


def test_split_of_the_file_is_kept(tmp_path):
    d = build(tmp_path, x_train=X[:10], y_train=Y[:10], x_test=X[10:, :, :20], y_test=Y[10:])
    assert (len(d.train), len(d.test), d.shape) == (10, 14, (2, 30))
    assert d.test.resident.tensor[:, :, 20:].isnan().all()  # padded to the longest


def test_groups_are_held_out_whole(tmp_path):
    who = np.array([f"p{i % 6}" for i in range(24)])
    for settings in ({}, {"group": "who"}):
        d = build(tmp_path, x=X, y=Y, **{"who" if settings else "groups": who}, settings=settings)
        rows = {r.tobytes(): w for r, w in zip(X, who, strict=True)}
        sides = [{rows[r.tobytes()] for r in s.resident.tensor.numpy()} for s in (d.train, d.test)]
        assert not sides[0] & sides[1]
        assert len(sides[0] | sides[1]) == 6
        assert "by group" in say(d)
    assert "stratified" in say(build(tmp_path, x=X, y=Y, groups=who, settings={"group": "none"}))
    with pytest.raises(RequestError, match="is not an entry") as error:
        build(tmp_path, x=X, volunteer=who, settings={"group": "volunter"})
    assert "dataset.group=volunteer" in error.value.hint
    with pytest.raises(DataError, match="24 series but 3 groups"):
        build(tmp_path, x=X, groups=who[:3])


def test_missing_values_do_not_count(tmp_path):
    x = X.copy()
    x[:, :, 20:] = np.nan
    x[5] = np.nan
    d = build(tmp_path, x=x, y=Y, settings={"holdout": 0})
    assert len(d.train) == 23
    assert "1 series without any value left out" in say(d)
    assert np.allclose(d.values.mean, np.nanmean(x.astype(float), (0, 2)), atol=1e-9)
    assert np.allclose(d.values.std, np.nanstd(x.astype(float), (0, 2)), atol=1e-9)
    assert d.train.labels.tolist() == np.delete(Y, 5).tolist()


def test_lengths_and_windows(tmp_path):
    lengths = np.array([10, 25, 40, 7])
    flat = RNG.normal(size=(82, 2)).astype(np.float32)
    padded = build(tmp_path, x=flat, len=lengths, y=np.arange(4), settings={"holdout": 0})
    assert padded.shape == (2, 40)
    assert (~padded.train.resident.tensor[:, 0].isnan()).sum(1).tolist() == lengths.tolist()
    assert np.array_equal(padded.train.resident.tensor[1, :, :25].numpy(), flat[10:35].T)
    cut = build(tmp_path, x=flat, len=lengths, y=np.arange(4), settings={"holdout": 0, "window": 10})
    # 10 -> 1; 25 -> 2 and a half that is kept; 40 -> 4; 7 -> 1
    assert cut.train.labels.tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert np.array_equal(cut.train.resident.tensor[2].numpy(), flat[20:30].T)
    assert cut.train.resident.tensor[3, 0].isnan().sum() == 5
    half = build(tmp_path, x=flat, len=lengths, settings={"holdout": 0, "window": 10, "stride": 5})
    assert len(half.train) == 1 + 4 + 7 + 1
    with pytest.raises(DataError, match="sum to"):
        build(tmp_path, x=flat, len=lengths + 1)
    with pytest.raises(RequestError, match="stride"):
        build(tmp_path, x=flat, len=lengths, settings={"stride": 5})


def test_windows_of_a_recording_share_its_group(tmp_path):
    d = build(tmp_path, x=X, groups=np.arange(24), settings={"window": 10, "holdout": 0.2})
    rows = {r[:, i : i + 10].tobytes(): n for n, r in enumerate(X) for i in (0, 10, 20)}
    sides = [{rows[r.tobytes()] for r in s.resident.tensor.numpy()} for s in (d.train, d.test)]
    assert not sides[0] & sides[1]


def sides(d, x=X, window=10):
    """The recordings on each side of the split."""
    rows = {r[:, i : i + window].tobytes(): n for n, r in enumerate(x) for i in range(x.shape[2] - window + 1)}
    return [{rows[r.tobytes()] for r in s.resident.tensor.numpy()} for s in (d.train, d.test)]


def test_windows_of_one_recording_stay_together(tmp_path):
    d = build(tmp_path, x=X, y=Y, settings={"window": 10, "stride": 5})
    train, test = sides(d)
    assert not train & test
    assert train | test == set(range(24))
    assert "whole recordings" in say(d)
    whole = build(tmp_path, x=X, y=Y, settings={"window": 30})
    assert sides(whole, window=30)[1] == test  # the same ones whatever the window is
    for source, part in ((d.train, train), (d.test, test)):
        assert len(set(source.groups.tolist())) == len(part)
    assert not set(d.train.groups.tolist()) & set(d.test.groups.tolist())


def test_split_of_older_runs_is_unchanged(tmp_path):
    d = build(tmp_path, x=X, y=Y, settings={"window": 10, "group": "auto", "holdout": 0.2})
    kept, held = split(72, 0.2, 0, torch.from_numpy(Y.repeat(3)))
    windows = torch.from_numpy(np.concatenate([[r[:, i : i + 10] for i in (0, 10, 20)] for r in X]))
    assert torch.equal(d.train.resident.tensor, windows[kept])
    assert torch.equal(d.test.resident.tensor, windows[held])
    assert d.train.groups is None
    assert "in both splits" in say(d)


def test_a_single_recording_is_divided_in_time(tmp_path):
    x = np.arange(200, dtype=np.float32).reshape(1, 1, 200)
    assert build(tmp_path, x=x, settings={"window": 10, "stride": 5}).test is None  # no labels
    d = build(tmp_path, x=x, settings={"window": 10, "stride": 5, "holdout": 0.2})
    assert float(d.test.resident.tensor.min()) == 160
    assert float(d.train.resident.tensor.max()) == 149  # a gap of one window
    assert "the only recording" in say(d)
    with pytest.raises(DataError, match="too short"):
        build(tmp_path, x=x[:, :, :15], settings={"window": 10, "stride": 5, "holdout": 0.5})


def test_held_out_recording_does_not_change_statistics(tmp_path):
    torch.manual_seed(0)
    backbone = TCN((2, 10), width=4, depth=2).eval()
    words = {"window": 10, "stride": 5}
    before = build(tmp_path, x=X, y=Y, settings=words)
    changed = X.copy()
    changed[min(sides(before)[1])] *= 100
    after = build(tmp_path, x=changed, y=Y, settings=words)
    assert (after.values.mean, after.values.std, after.split) == (before.values.mean, before.values.std, before.split)
    assert torch.equal(after.train.resident.tensor, before.train.resident.tensor)
    assert not torch.equal(after.test.resident.tensor, before.test.resident.tensor)
    assert online(backbone, after) == online(backbone, before)
    fitted = [probe(backbone, EvalData(d), labels="5/class", baselines=False).protocol for d in (before, after)]
    for key in ("strength", "solver", "splits"):
        assert fitted[0][key] == fitted[1][key]


def test_online_evaluation_holds_out_recordings(tmp_path):
    d = build(tmp_path, x=X, y=Y, settings={"window": 10, "stride": 5})
    shuffled, ask = _by_group(torch.randperm(len(d.train)), d.train.groups, 12)
    groups = d.train.groups[shuffled]
    assert ask >= 12
    assert sorted(shuffled.tolist()) == list(range(len(d.train)))
    assert not set(groups[:ask].tolist()) & set(groups[ask:].tolist())


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.where(X > 2, np.inf, X), "infinite"),
        (np.zeros((3, 2, 2, 2)), "expected series"),
        (np.zeros((3, 2, 1)), "at least 2 steps"),
        (np.full((3, 2, 9), np.nan), "holds any value"),
        (np.zeros((0, 2, 9)), "is empty"),
        (np.array([["a", "b"]]), "expected numbers"),
        (np.full((3, 1, 9), 1e60), "too large"),
    ],
)
def test_useless_series(x, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        build(tmp_path, x=x)


def test_constant_channel(tmp_path):
    x = X.copy()
    x[:, 1] = 4
    d = build(tmp_path, x=x)
    assert d.values.std[1] == 1
    assert "1 constant channel" in say(d)


def test_real_series(test_data):
    gun = series(str(test_data / "timeseries" / "GunPoint.npz"))
    assert (gun.shape, len(gun.train), len(gun.test), gun.classes) == ((1, 150), 50, 150, ("1", "2"))
    wrist = series(str(test_data / "timeseries" / "hmp_wrist.npz"), group="volunteer", window=128)
    assert wrist.shape == (3, 128)
    assert len(wrist.classes) == 14
    assert "16 groups" in say(wrist)
    assert 0.1 < len(wrist.test) / (len(wrist.train) + len(wrist.test)) < 0.3


@pytest.mark.parametrize(("steps", "value"), [(1, 1e6), (5, -9999.0)])
def test_outlier_values_warn(steps, value, tmp_path):
    x = np.random.default_rng(0).normal(0, 1, (20, 2, 30))
    np.savez(tmp_path / "d.npz", x=x)
    assert not any("set the scale" in n for n in series(str(tmp_path / "d.npz")).notes)
    x[:10, 1, :steps] = value
    np.savez(tmp_path / "d.npz", x=x)
    assert any("warning" in n and "channel 1" in n and "NaN" in n for n in series(str(tmp_path / "d.npz")).notes)


def test_small_values_are_not_constant(tmp_path):
    """Strains of 1e-21 are data; they were divided by 1."""
    x = np.random.default_rng(0).normal(0, 1e-21, (20, 1, 30))
    np.savez(tmp_path / "d.npz", x=x)
    d = series(str(tmp_path / "d.npz"))
    assert d.values.std[0] == pytest.approx(1e-21, rel=0.1)
    assert not any("warning" in n for n in d.notes)


def test_held_out_recording_changes_nothing_that_is_fitted(cli, tmp_path):
    """Numbers of one held-out recording move neither statistics, preprocessor, pretrained weights nor those of the probe."""
    words = ["dataset=series", f"dataset.path={tmp_path / 's.npz'}", "dataset.window=10", "dataset.stride=5"]
    words += ["backbone=tcn", "backbone.width=4", "train.epochs=null", "train.steps=5", "train.batch_size=16"]
    words += ["train.eval_every=0", "device=cpu", "device.threads=1", "method=simclr"]
    fitted, scores = [], []
    x = X.copy()
    for _ in range(2):
        d = build(tmp_path, x=x, y=Y, settings={"window": 10, "stride": 5})
        trained = cli("pretrain", *words)
        assert trained.code == 0, trained.err
        encoder = load(trained.last)
        z, t = (encoder.embed(source.x) for source in (d.train, d.test))
        model = fit_linear_probe(z, d.train.labels, parse("all"), seed=0, groups=d.train.groups)
        head = model.linear("cpu")
        fitted.append((d.values, encoder.preprocessor.sha256, encoder.info["sha256"], head.weight, head.bias))
        scores.append(model.logits(t))
        x[min(sides(d, x)[1])] *= 100
    assert fitted[0][:3] == fitted[1][:3]
    assert all(torch.equal(a, b) for a, b in zip(fitted[0][3:], fitted[1][3:], strict=True))
    assert not torch.equal(*scores)  # the changed recording is among those that are evaluated
