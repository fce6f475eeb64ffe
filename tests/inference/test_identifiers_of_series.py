"""A run on a long table of series whose recordings and times are in columns of other names: what `predict` and `embed` write."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslcli import api
from sslcli.data.sources.series import series
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.user_files.series import read_series_files
from sslcli.errors import DataError
from sslcli.nn.values import Continuous
from tests.inference.encoders import CPU

STEPS = 12


def write(path: Path, machines: range, label: bool = False, steps: int = STEPS, only: str = "") -> str:
    head = ["machine", "clock", "speed", "heat", "state"][: 5 if label else 4]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(head[bool(only) :])
        for m in machines:
            for t in reversed(range(steps)):  # sorted by the column of times alone
                speed, heat = math.sin(t * (0.3 + m % 2)) + m / 100, (t + m) % 5 + 0.5
                row = [f"M-{m:03}", t, round(speed, 4), heat, ("good", "bad")[m % 2]][: len(head)]
                out.writerow(row[bool(only) :])
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    data = ["dataset=series", f"dataset.path={write(folder / 'long.csv', range(40), label=True)}"]
    data += ["dataset.id=machine", "dataset.time=clock", "dataset.label=state", "backbone=gru", "backbone.width=8"]
    steps = ["train.steps=2", "train.epochs=null", "train.eval_every=0", "train.batch_size=8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = api.pretrain("method=simclr", *data, *steps, **CPU).path.resolve()
        api.evaluate(path, "probe", "evaluator.baselines=false", **CPU)
    return path


def test_predictions_and_embeddings_have_the_recordings(cli, run, tmp_path):
    new = write(tmp_path / "new.csv", range(40, 45))
    done = cli("predict", str(run), new)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(done.out.splitlines()))
    assert list(rows[0])[:3] == ["machine", "path", "class"]
    assert [(row["machine"], row["path"]) for row in rows] == [(f"M-{m:03}", new) for m in range(40, 45)]
    own = csv.DictReader(cli("predict", str(run), "split=test").out.splitlines())
    assert all(row["path"] == f"test/{row['machine']}" for row in own)
    done = cli("embed", str(run), new, f"out={tmp_path / 'e.npz'}")
    assert done.code == 0, done.err
    with np.load(tmp_path / "e.npz") as embeddings:
        assert embeddings["id"].tolist() == [f"M-{m:03}" for m in range(40, 45)]
        assert json.loads(str(embeddings["meta"][()]))["samples"]["id"] == "machine"


def test_windows_of_long_recordings_have_their_first_step(cli, run, tmp_path):
    new = write(tmp_path / "long.csv", range(2), steps=2 * STEPS)
    rows = list(csv.DictReader(cli("predict", str(run), new).out.splitlines()))
    assert [row["machine"] for row in rows] == [f"M-{m:03}:{start}" for m in range(2) for start in (0, STEPS)]


def test_a_table_of_one_recording_needs_no_column_of_recordings(cli, run, tmp_path):
    """It is sorted by the column of times, so that its prediction is that of the recording in a table of several."""
    one, several = write(tmp_path / "one.csv", range(40, 41), only="M-040"), write(tmp_path / "new.csv", range(40, 42))
    (alone,) = csv.DictReader(cli("predict", str(run), one).out.splitlines())
    first, _ = csv.DictReader(cli("predict", str(run), several).out.splitlines())
    assert "machine" not in alone
    assert alone["probability_good"] == first["probability_good"]


def test_preprocessor_records_the_named_columns_alone(tmp_path):
    values, channels = Continuous((0.0, 0.0), (1.0, 1.0)), ("speed", "heat")
    plain = SeriesPreprocessor((2, 4), values, channels=channels)
    assert not {"id", "time"} & set(plain.to_json())
    named = SeriesPreprocessor((2, 4), values, channels=channels, id="machine", time="clock")
    assert SeriesPreprocessor.from_json(named.to_json(), {}) == named
    dataset = series(write(tmp_path / "rows.csv", range(3), steps=4), id="machine", time="clock")
    assert SeriesPreprocessor.of(dataset.shape, dataset.values, dataset.details).id == "machine"
    adapted = plain.adapt(dataset, [])  # an encoder of an earlier version keeps its own hash
    assert SeriesPreprocessor.of(adapted.shape, adapted.values, adapted.details) == plain


def test_an_encoder_of_other_columns_says_how_to_name_them(tmp_path):
    new = write(tmp_path / "new.csv", range(2), steps=4)
    plain = SeriesPreprocessor((2, 4), Continuous((0.0, 0.0), (1.0, 1.0)), channels=("speed", "heat"))
    with pytest.raises(DataError, match="two rows have the time") as error:
        read_series_files([new], replace(plain, time="clock"), [])
    assert f"dataset=series dataset.path={new} dataset.id=COLUMN" in error.value.hint
