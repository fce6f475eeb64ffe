"""Series in tables: long, wide, a folder of recordings; and what is said of bad ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sslcli.data.dataset import Preprocessor
from sslcli.data.preprocess import preprocessor_of
from sslcli.data.sources.series import series
from sslcli.data.user_files.series import read_series_files
from sslcli.errors import DataError, RequestError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("            ", ""), encoding="utf-8")
    return str(path)


def say(d) -> str:
    return "\n".join(d.notes)


LONG = """id,time,a,b,label
x,0,1,10,up
x,1,2,,up
y,0,5,50,down
x,2,3,30,up
y,1,6,60,down
"""


def test_long_table_has_a_recording_for_each_id(tmp_path):
    d = series(write(tmp_path / "long.csv", LONG), holdout=0)
    x = d.train.x
    assert (d.shape, d.classes, d.train.labels.tolist()) == ((2, 3), ("down", "up"), [1, 0])
    assert x[0, 0].tolist() == [1, 2, 3]
    assert x[0, 1].isnan().tolist() == [False, True, False]
    assert x[1, :, :2].tolist() == [[5, 6], [50, 60]]
    assert x[1, :, 2].isnan().all()
    assert d.details["channels"] == ["a", "b"]
    assert d.details["recordings"]["lengths"] == [2, 2, 3]
    assert "1 recording with gaps inside, the longest of 1 step" in say(d)
    other = series(str(tmp_path / "long.csv"), holdout=0, label="none", drop=["b", "label"])
    assert other.shape == (1, 3)
    assert other.classes == ()


def test_long_table_without_ids_is_one_recording_in_time(tmp_path):
    text = "date,load,target\n2020-01-01 02:00:00,3,1\n2020-01-01 00:00:00,1,1\n2020-01-01 01:00:00,2,2\n2020-01-01 04:00:00,5,3\n"
    d = series(write(tmp_path / "one.csv", text))
    assert d.train.x[0, 0].tolist()[:3] == [1, 2, 3]
    assert d.train.x[0, :, 3].isnan().all()  # 03:00 has no row
    assert d.train.x[0, 0, 4] == 5
    for words in (
        "not in the order of time: sorted",
        "1 missing step",
        "time between two steps: 1 hour",
        "one recording only",
    ):
        assert words in say(d), words
    assert d.shape == (2, 5)  # without ids, `target` is a channel


def test_times_without_a_regular_step_cause_a_warning(tmp_path):
    d = series(write(tmp_path / "t.csv", "time,v\n0,1\n1,2\n2,3\n2.5,4\n4.1,5\n"))
    assert d.shape == (1, 5)
    assert "without a regular step" in say(d)
    assert "time between two steps: 1" in say(d)


@pytest.mark.parametrize(
    ("text", "settings", "error", "words"),
    [
        ("id,time,v\na,0,1\na,1,x7\n", {}, DataError, "line 3: the column v holds 'x7'; expected a number"),
        ("id,time,v\na,0,1\na,0,2\n", {}, DataError, "lines 2 and 3: two rows of the recording a have the time 0"),
        ("time,v\n0,1\n0,2\n", {}, DataError, "lines 2 and 3: two rows have the time 0"),
        ("time,v\n0,1\nsoon,2\n", {}, DataError, "line 3: the time 'soon' is neither a number nor a date"),
        ("id,time,v\na,0,1\nb,0,2\n", {}, DataError, "have a single step"),
        ("time,v\n0,\n1,NaN\n", {}, DataError, "no series of .* holds any value"),
        ("time,v\n0,1\n1,inf\n", {}, DataError, "line 3: the column v holds inf"),
        ("time,v\n", {}, DataError, "no rows"),
        ("id,time\na,0\na,1\n", {}, DataError, "no columns of values"),
        ("id,time,v,who\na,0,1,p\na,1,1,q\n", {"group": "who"}, DataError, "line 3: the column who changes within"),
        ("id,time,v\na,0,1\na,1,2\n", {"label": "clas"}, RequestError, "dataset.label=clas is not a column"),
        ("id,time,v\na,0,1\na,1,2\n", {"format": "tall"}, RequestError, "expected auto, long or wide"),
        ("id,time,v\na,0,1\na,1,2\n", {"drop": ["w"]}, RequestError, "dataset.drop: w is not a column"),
        ("id,time,v\na,0,1\na,1,2\n", {"scale": "test"}, RequestError, "expected train, sample or none"),
    ],
)  # fmt: skip
def test_bad_tables_are_errors(tmp_path, text, settings, error, words):
    with pytest.raises(error, match=words):
        series(write(tmp_path / "bad.csv", text), **settings)


def test_long_table_may_name_its_splits_and_groups(tmp_path):
    rows = [f"{i},{t},{i + t},{i % 2},p{i // 2},{'test' if i > 5 else 'train'}" for i in range(8) for t in range(3)]
    path = write(tmp_path / "s.csv", "id,time,v,label,who,split\n" + "\n".join(rows) + "\n")
    d = series(path, group="who", drop=["split"], holdout=0.25)
    assert len(d.train) + len(d.test) == 8
    assert "by group" in say(d)
    d = series(path, group="none", drop=["who"])
    assert (len(d.train), len(d.test)) == (6, 2)
    assert d.test.labels.tolist() == [0, 1]


def test_wide_table_has_a_series_in_each_row(tmp_path):
    d = series(
        write(tmp_path / "wide.csv", "t1,t2,t3,label\n1,2,3,a\n4,?,\n7,8,9,b\n".replace("4,?,\n", "4,?,,b\n")),
        holdout=0,
    )
    assert d.shape == (1, 3)
    assert d.classes == ("a", "b")
    assert d.train.x[1, 0, 0] == 4
    assert d.train.x[1, 0, 1:].isnan().all()
    assert d.details["recordings"]["lengths"] == [1, 3, 3]
    assert "1 recording of a single step" in say(d)


def test_ucr_files_have_the_label_first_and_a_test_file_beside(tmp_path):
    train = write(tmp_path / "Gun_TRAIN.tsv", "1\t0.5\t-1.5\t2\n2\t1\t1\tNaN\n1\t3\t4\t5\n")
    write(tmp_path / "Gun_TEST.tsv", "2\t9\t9\t8\n")
    d = series(train)
    assert (d.shape, d.classes, len(d.train), len(d.test)) == ((1, 3), ("1", "2"), 3, 1)
    assert d.train.labels.tolist() == [0, 1, 0]
    assert d.test.labels.tolist() == [1]
    assert "Gun_TEST.tsv beside it is the test split" in say(d)
    assert torch.equal(series(str(tmp_path)).test.x, d.test.x)  # the folder of both
    assert series(train, test="none", holdout=0).test is None
    assert series(train, test="Gun_TEST.tsv").test.labels.tolist() == [1]


def test_a_folder_of_tables_has_a_recording_in_each(tmp_path):
    for kind, (first, second) in {"walk": ("a", "b"), "sit": ("b", "a")}.items():
        for i in range(3):
            rows = "".join(f"{t},{t + i},{-t}\n" for t in range(4 + i))
            write(tmp_path / "train" / kind / f"r{i}.csv", f"time,{first},{second}\n{rows}")
        write(tmp_path / "test" / kind / "r.csv", "time,a\n0,1\n1,2\n")
    d = series(str(tmp_path))
    assert (d.classes, len(d.train), len(d.test)) == (("sit", "walk"), 6, 2)
    assert d.details["channels"] == ["a", "b"]  # in the order of the first files
    assert "the channel b is absent from 2 of 8 recordings" in say(d)
    assert d.test.x[:, 1].isnan().all()
    walk = d.train.x[d.train.labels == 1]
    assert walk[1, 0, :5].tolist() == [1, 2, 3, 4, 5]  # a
    assert d.train.x[0, 1, :3].tolist() == [0, 1, 2]  # b, which is the first column of `sit`
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no series"):
        series(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("splits", "held", "words"), [("train val", 2, "val is the held-out split"), ("train val test", 2, "not used")]
)
def test_validation_is_held_out_or_named_as_unused(tmp_path, splits, held, words):
    rows = [f"{i},{t},{i + t},{split}" for i, split in enumerate(splits.split() * 2) for t in range(3)]
    d = series(write(tmp_path / "t.csv", "id,time,v,split\n" + "\n".join(rows) + "\n"))
    assert (len(d.train), len(d.test)) == (2, held)
    assert words in say(d)
    first = len(splits.split()) - 1  # the number of the first recording that is held out
    assert d.test.x[0, 0].tolist() == [first, first + 1, first + 2]


def test_values_to_predict_come_from_columns(tmp_path):
    rows = "".join(f"{i},{t},{t * i},{i + 0.5}\n" for i in range(10) for t in range(4))
    path = write(tmp_path / "v.csv", "id,time,v,target\n" + rows)
    d = series(path)
    assert d.task == "value"
    assert sorted(torch.cat([d.train.targets["value"], d.test.targets["value"]]).tolist()) == [
        i + 0.5 for i in range(10)
    ]
    whole = write(tmp_path / "w.csv", "id,time,v,target\n" + rows.replace(".5\n", "\n"))
    assert series(whole).task == "classes"
    assert series(whole, task="value").task == "value"


def test_scale_of_samples_and_none(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(6, 2, 12)) * rng.uniform(1, 9, (6, 2, 1)) + rng.uniform(-5, 5, (6, 2, 1))).astype(np.float32)
    x[0, 0, 4:6] = np.nan
    x[1, 1] = 3
    np.savez(tmp_path / "x.npz", x=x)
    path = str(tmp_path / "x.npz")
    none = series(path, scale="none")
    assert (none.values.mean, none.values.std) == ((0.0, 0.0), (1.0, 1.0))
    assert np.array_equal(none.train.x.numpy(), x, equal_nan=True)
    sample = series(path, scale="sample")
    found = sample.train.x.double().numpy()
    assert sample.values.std == (1.0, 1.0)
    assert np.allclose(np.nanmean(found, axis=2), 0, atol=1e-5)
    varies = np.ones((6, 2), bool)
    varies[1, 1] = False
    assert np.allclose(np.nanstd(found, axis=2)[varies], 1, atol=1e-5)
    assert (found[1, 1] == 0).all()
    assert np.isnan(found[0, 0, 4:6]).all()


def test_normalized_files_are_recognized(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 1, 50))
    np.savez(tmp_path / "x.npz", x=x * 3 + 1)
    assert not series(str(tmp_path / "x.npz")).details["recordings"]["z_normalized"]
    np.savez(tmp_path / "z.npz", x=(x - x.mean(2, keepdims=True)) / x.std(2, keepdims=True))
    d = series(str(tmp_path / "z.npz"))
    assert d.details["recordings"]["z_normalized"]
    assert "z-normalized already" in say(d)


def test_time_split_divides_each_recording(tmp_path):
    rows = "".join(f"{i},{t},{100 * i + t}\n" for i in range(2) for t in range(50))
    path = write(tmp_path / "t.csv", "id,time,v\n" + rows)
    d = series(path, window=5, stride=1, time_split=[0.6, 0.2, 0.2])
    assert (len(d.train), len(d.test)) == (2 * 26, 2 * 6)
    assert d.train.x[:26].max() == 29
    assert d.test.x[:6].min() == 40
    assert d.timeline.ends == [(30, 40, 50)] * 2
    assert d.values.mean[0] == pytest.approx(np.mean([*range(30), *range(100, 130)]))  # each training step once
    assert series(path, window=5, time_split=[30, 10, 10]).timeline.ends == d.timeline.ends
    for parts, words in (([0.9, 0.2, 0.1], "at most 1"), ([40, 10, 10], "50 steps only"), ([1, 2], "three numbers")):
        with pytest.raises((RequestError, DataError), match=words):
            series(path, window=5, time_split=parts)
    with pytest.raises(RequestError, match=r"requires dataset\.window"):
        series(path, time_split=[0.6, 0.2, 0.2])


def test_files_for_an_encoder_are_read_by_the_names_of_channels(tmp_path):
    d = series(write(tmp_path / "train.csv", LONG), label="label", holdout=0)
    preprocessor = preprocessor_of(d)
    assert preprocessor.channels == ("a", "b")
    other = write(tmp_path / "new.csv", "id,time,state,b,a\nq,0,on,1,2\nq,1,off,3,4\nq,2,off,5,6\n")
    notes: list[str] = []
    found = read_series_files([other], preprocessor, notes)
    assert found.dataset.train.read(0).tolist() == [[2, 4, 6], [1, 3, 5]]
    assert any("columns that are not read: state" in note for note in notes)
    with pytest.raises(DataError, match="lacks the channel b"):
        read_series_files([write(tmp_path / "less.csv", "id,time,a\nq,0,1\nq,1,2\n")], preprocessor, [])
    assert type(preprocessor).from_json(preprocessor.to_json(), {}) == preprocessor
    with pytest.raises(RequestError, match="takes the channels a, b"):
        preprocessor.adapt(series(other, channels=["b", "a"]), [])


def test_recordings_of_another_rate_than_those_of_training_are_warned_of(tmp_path):
    """The step is kept with the encoder. Times that are dates are compared in seconds, and not with those that are numbers."""

    def at(name: str, *times: str) -> str:
        rows = "".join(f"{t},{i}\n" for i, t in enumerate(times))
        return write(tmp_path / f"{name}.csv", "time,x\n" + rows)

    def warned(path: str, preprocessor: Preprocessor) -> list[str]:
        notes: list[str] = []
        read_series_files([path], preprocessor, notes)
        return [note for note in notes if "time between two steps" in note]

    minutes = at("minutes", *(f"2026-03-01T10:0{i}:00" for i in range(4)))
    seconds = at("seconds", *(f"2026-03-01T10:00:0{i}" for i in range(4)))
    numbers = at("numbers", "0", "60", "120", "180")
    fitted = preprocessor_of(series(minutes, holdout=0))
    again = type(fitted).from_json(json.loads(json.dumps(fitted.to_json())), {})
    assert again == fitted
    assert warned(minutes, again) == warned(numbers, again) == []
    said = "warning: time between two steps: 1 second; that of the data which the encoder was trained on: 1 minute"
    assert warned(seconds, again) == [f"{said}; resample the recordings"]
    without = type(fitted).from_json({k: v for k, v in fitted.to_json().items() if k != "step"}, {})
    assert warned(seconds, without) == []  # of an earlier version, whose runs are resumed with what they recorded
    for own in (without, again):
        assert preprocessor_of(own.adapt(series(minutes, holdout=0), [])).sha256 == own.sha256
    for wrong in (
        {"shortest": 1},
        {"shortest": 2, "longest": 1, "dates": True},
        {"shortest": 0, "longest": 1, "dates": True},
        3,
    ):
        with pytest.raises(ValueError, match="step: expected"):
            type(fitted).from_json({**fitted.to_json(), "step": wrong}, {})


def test_times_of_a_folder_are_counted_over_its_files(tmp_path):
    for name, step, gone in (("a", 1, 3), ("b", 1, 4), ("c", 2, 5)):
        rows = "".join(f"{t * step},{t}\n" for t in range(10) if t != gone)
        write(tmp_path / "plant" / f"{name}.csv", "time,x\n" + rows)
    said = say(series(str(tmp_path / "plant")))
    assert "3 missing steps of recordings with a regular step" in said
    assert "warning: time between two steps: 1 to 2: steps count as equally long" in said
    (tmp_path / "plant" / "c.csv").unlink()
    assert "\ntime between two steps: 1\n" in say(series(str(tmp_path / "plant")))
