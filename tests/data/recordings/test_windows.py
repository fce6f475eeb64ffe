"""Windows that overlap: made when they are read where they would be large, and the same as those in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslcli.data.recordings import windows
from sslcli.data.sources.series import series
from sslcli.data.storage import Dense, Windowed
from sslcli.views import clean

RNG = np.random.default_rng(0)
LENGTHS = np.array([50, 31, 8, 40])
X = RNG.normal(size=(LENGTHS.sum(), 2)).astype(np.float32)
X[20:24] = np.nan
X[60:72] = np.nan  # a whole window
Y = np.array([0, 1, 0, 1])


@pytest.mark.parametrize("settings", [{}, {"scale": "sample"}, {"holdout": 0, "label": "none"}, {"scale": "none"}])
def test_windows_made_when_read_are_those_in_memory(tmp_path, monkeypatch, settings):
    np.savez(tmp_path / "x.npz", x=X, len=LENGTHS, y=Y)
    given = {"window": 10, "stride": 3, "holdout": 0.25, **settings}
    dense = series(str(tmp_path / "x.npz"), **given)
    monkeypatch.setattr(windows, "LAZY_BYTES", 0)
    lazy = series(str(tmp_path / "x.npz"), **given)
    assert isinstance(dense.train.storage, Dense)
    assert isinstance(lazy.train.storage, Windowed)
    for name in ("train", "test"):
        a, b = getattr(dense, name), getattr(lazy, name)
        if a is None:
            assert b is None
            continue
        ids = torch.arange(len(a))
        torch.testing.assert_close(b.storage.take(ids), a.x, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(b.read(len(b) - 1), a.x[-1], rtol=0, atol=0, equal_nan=True)
        assert a.labels is None or torch.equal(a.labels, b.labels)
        assert torch.equal(a.groups, b.groups)
    missing = [[note for note in d.notes if "left out" in note or "missing or padding" in note] for d in (dense, lazy)]
    assert missing[0] == missing[1]
    assert len(missing[0]) == 2
    assert dense.split == lazy.split
    assert lazy.values.std == pytest.approx(dense.values.std, rel=0.1)


def test_statistics_count_each_step_once(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "LAZY_BYTES", 0)
    x = RNG.normal(size=(1, 1, 40)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    d = series(str(tmp_path / "x.npz"), window=8, stride=2, holdout=0.25)
    last = int(d.train.storage.starts.max()) + 8
    assert d.values.mean[0] == pytest.approx(float(x[0, 0, :last].mean()), rel=1e-5)
    assert int(d.test.storage.starts.min()) >= last  # no step is in both splits


def test_a_million_windows_take_the_memory_of_their_steps(tmp_path):
    np.save(tmp_path / "x.npy", np.sin(np.arange(1_000_127, dtype=np.float32) / 9)[None, None])
    d = series(str(tmp_path / "x.npy"), window=128, stride=1)
    assert len(d.train) == 1_000_000
    assert d.train.storage.nbytes < 21e6  # in memory they would have 512 MB
    view = clean(d)
    batch = d.train.storage.batch(torch.tensor([0, 999_999]), torch.device("cpu"))
    assert batch.shape == (2, 1, 128)
    assert batch[1, 0, -1] == pytest.approx(np.sin(1_000_126 / 9), abs=1e-2)
    assert view is not None
