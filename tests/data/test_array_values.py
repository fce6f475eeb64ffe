"""Numbers to predict (the task value) beside images and series in array files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.series import series
from sslcli.errors import DataError, RequestError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2, 30)).astype(np.float32)
IMAGES = RNG.integers(0, 256, (20, 6, 6), dtype=np.uint8)
V = RNG.normal(size=20).round(3)


def build(tmp_path, kind=series, *, settings=None, **entries):
    np.savez(tmp_path / "s.npz", **entries)
    return kind(str(tmp_path / "s.npz"), **(settings or {}))


@pytest.mark.parametrize(("kind", "x"), [(series, X), (arrays, IMAGES)])
def test_fractions_are_values(kind, x, tmp_path):
    v = V.copy()
    v[3] = np.nan
    d = build(tmp_path, kind, x=x, y=v)
    assert (d.task, d.classes, d.train.labels) == ("value", (), None)
    assert (len(d.train), len(d.test)) == (16, 4)  # auto: a fifth
    kept = {r.tobytes(): i for i, r in enumerate(x)}
    for source in (d.train, d.test):
        ids = [kept[r.numpy().tobytes()] for r in source.x.reshape(len(source), *x.shape[1:])]
        assert source.targets["value"].dtype == torch.float64
        assert np.array_equal(source.targets["value"].numpy(), v[ids], equal_nan=True)
    assert any("19 values to predict" in note and "1 missing" in note for note in d.notes)
    changed = v.copy()
    changed[0] += 1
    assert build(tmp_path, kind, x=x, y=changed).fingerprint != d.fingerprint


def test_integers_are_classes_unless_task_is_value(tmp_path):
    y = (np.arange(20) % 4).astype(np.float64)
    classes = build(tmp_path, x=X, y=y)
    assert (classes.task, classes.classes, classes.train.targets) == ("classes", ("0", "1", "2", "3"), {})
    values = build(tmp_path, x=X, y=y, settings={"task": "value"})
    assert values.task == "value"
    assert set(values.train.targets["value"].tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert build(tmp_path, x=X, y=y, settings={"task": "classes"}).fingerprint == classes.fingerprint


def test_windows_have_the_value_of_their_recording(tmp_path):
    d = build(tmp_path, x=X, y=V, settings={"window": 10})
    rows = {r[:, i : i + 10].tobytes(): v for r, v in zip(X, V, strict=True) for i in (0, 10, 20)}
    for source in (d.train, d.test):
        assert source.targets["value"].tolist() == [rows[w.numpy().tobytes()] for w in source.x]
    assert not set(d.train.groups.tolist()) & set(d.test.groups.tolist())


def test_values_of_given_splits(tmp_path):
    d = build(tmp_path, x_train=X[:12], y_train=V[:12, None], x_test=X[12:], y_test=V[12:])
    assert d.train.targets["value"].tolist() == V[:12].tolist()
    assert d.test.targets["value"].tolist() == V[12:].tolist()


@pytest.mark.parametrize(
    ("y", "task", "text"),
    [
        (np.full(20, np.nan), "value", "all values"),
        (np.where(np.arange(20) == 2, np.inf, V), "auto", "not finite numbers"),
        (np.array(["a"] * 20), "value", "not finite numbers"),
        (np.stack([V, V], 1), "auto", "expected one for each of 20 samples"),
        (V[:19], "auto", "expected one for each of 20 samples"),
        (V, "classes", "are not integers; expected classes"),
    ],
)
def test_invalid_values_are_refused(y, task, text, tmp_path):
    with pytest.raises(DataError, match=text):
        build(tmp_path, x=X, y=y, settings={"task": task})


def test_unknown_task_is_refused(tmp_path):
    for kind, x in ((series, X), (arrays, IMAGES)):
        with pytest.raises(RequestError, match=r"dataset\.task: expected auto, classes or value"):
            build(tmp_path, kind, x=x, settings={"task": "regression"})


def test_pretraining_without_classes(cli, tmp_path):
    np.savez(tmp_path / "s.npz", x=X, y=V)
    words = ["dataset=series", f"dataset.path={tmp_path / 's.npz'}", "backbone=mlp", "backbone.width=8"]
    words += ["train.epochs=null", "train.steps=2", "train.batch_size=8", "device=cpu", "device.threads=1"]
    trained = cli("pretrain", *words)
    assert trained.code == 0, trained.err
    assert "20 values to predict" in trained.err
    inspected = cli("data", "inspect", *words[:2], "--json")
    assert (inspected.code, json.loads(inspected.out)["classes"]) == (0, [])
