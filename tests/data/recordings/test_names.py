"""Names of recordings and of their windows, by which files of labels and of an audit mean them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslcli.data.samples.window_names import windows_of_recordings
from sslcli.data.sources.series import series
from sslcli.errors import DataError
from sslcli.evals.inputs.label_file import apply_label_file
from tests.data.recordings.test_tables import LONG, write


@pytest.fixture
def plant(tmp_path):
    """Twelve recordings of 20 steps, `pump 0.csv` to `pump 11.csv`."""
    rng = np.random.default_rng(0)
    for i in range(12):
        rows = "".join(f"{t},{v:.3f}\n" for t, v in enumerate(rng.normal(size=20)))
        write(tmp_path / "plant" / f"pump {i}.csv", "time,power\n" + rows)
    return str(tmp_path / "plant")


def test_recordings_have_the_names_of_their_files(plant):
    assert list(series(plant).train.names)[:2] == ["pump 0.csv", "pump 1.csv"]
    windows = series(plant, window=10)
    assert list(windows.train.names)[:3] == ["pump 0.csv:0", "pump 0.csv:10", "pump 1.csv:0"]
    assert windows.train.names[2:4] == ["pump 1.csv:0", "pump 1.csv:10"]
    held = series(plant, window=10, holdout=0.25)
    assert len(held.test.names) == len(held.test) == 6
    assert set(held.train.names) | set(held.test.names) == set(windows.train.names)


def test_recordings_of_a_long_table_have_its_ids(tmp_path):
    d = series(write(tmp_path / "long.csv", LONG), holdout=0)
    assert list(d.train.names) == ["x", "y"]
    several = write(tmp_path / "folder" / "a.csv", LONG.replace(",label", ",c").replace("up", "1").replace("down", "2"))
    assert series(str(tmp_path / "folder"), holdout=0).train.names[1] == "a.csv:y", several


def test_windows_are_found_by_their_recording():
    assert windows_of_recordings(["a:0", "b:0", "a:10"]) == {"a": [0, 2], "b": [1]}
    assert windows_of_recordings(["a:0", "b.png"]) == windows_of_recordings(None) == {}


def test_a_label_of_a_recording_is_that_of_its_windows(plant, tmp_path):
    rows = "\n".join(f"pump {i}.csv,{'worn' if i % 2 else 'ok'}" for i in range(12))
    file = write(tmp_path / "labels.csv", f"path,label\n{rows}\n")
    d, notes = apply_label_file(series(plant, window=2), file)
    assert f"12 recordings of {file}: each label is that of all windows of the recording" in notes
    assert len(d.train) + len(d.test) == 120
    parts = [{name.rpartition(":")[0] for name in source.names} for source in (d.train, d.test)]
    assert parts[1]
    assert not parts[0] & parts[1], "no recording is on both sides"
    worn = d.classes.index("worn")
    for name, label in zip(d.train.names, d.train.labels.tolist(), strict=True):
        assert (label == worn) == (int(name[5:].split(".")[0]) % 2 == 1)


def test_windows_may_have_labels_of_their_own(plant, tmp_path):
    text = "path,label\npump 0,ok\npump 1.csv:0,worn\npump 2,ok\npump 3.csv:10,worn\n"
    whole = series(plant, window=10)
    d, _ = apply_label_file(whole, write(tmp_path / "labels.csv", text))
    labeled = {
        name for source in (d.train, d.test) for name, y in zip(source.names, source.labels, strict=True) if y >= 0
    }
    assert labeled == {
        "pump 0.csv:0",
        "pump 0.csv:10",
        "pump 1.csv:0",
        "pump 2.csv:0",
        "pump 2.csv:10",
        "pump 3.csv:10",
    }
    twice = write(tmp_path / "twice.csv", text + "pump 0.csv:0,worn\n")
    with pytest.raises(DataError, match="line 6"):
        apply_label_file(whole, twice)
    unknown = write(tmp_path / "unknown.csv", text + "pump 99,worn\n")
    with pytest.raises(DataError, match="does not have"):
        apply_label_file(whole, unknown)


def test_an_index_still_means_a_training_sample(plant, tmp_path):
    text = "id,label\n0,ok\n1,worn\n2,ok\n3,worn\n"
    d, _ = apply_label_file(series(plant, window=10), write(tmp_path / "labels.csv", text))
    labels = torch.cat([d.train.labels, d.test.labels])
    assert int((labels >= 0).sum()) == 4
