"""The formats of the time series archives: .ts and .arff; and Parquet."""

from __future__ import annotations

import numpy as np
import pytest

from sslcli.data.recordings.read import read_recordings
from sslcli.data.recordings.recordings import Columns
from sslcli.data.sources.series import series
from sslcli.errors import DataError, RequestError

TS = """# a comment
@problemName Toy
@timeStamps false
@univariate false
@classLabel true a b
@data
1,2,3:4,?,6:a
5,6:7,8:b
"""
ARFF = """% a comment
@RELATION Toy
@ATTRIBUTE att0 NUMERIC
@ATTRIBUTE att1 NUMERIC
@ATTRIBUTE target {1, 2}
@DATA
1.5,2,1
?,4,2
"""
RELATIONAL = """@relation Toy
@attribute relationalAtt relational
@attribute t0 numeric
@attribute t1 numeric
@attribute t2 numeric
@end relationalAtt
@attribute classAttribute {walk,run}
@data
"1,2,3\\n4,5,?",walk
'6,7,8\\n9,10,11',run
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(path):
    return read_recordings(path, "nct", Columns(), [])


def test_ts_files_have_channels_and_labels(tmp_path):
    path = write(tmp_path / "Toy_TRAIN.ts", TS)
    write(tmp_path / "Toy_TEST.ts", TS.replace("5,6:7,8:b", "0,0:0,0:a"))
    found = read(path)
    np.testing.assert_array_equal(found.parts["train"][0], np.array([[1, 2, 3], [4, np.nan, 6]], np.float32))
    assert [r.shape for r in found.parts["train"]] == [(2, 3), (2, 2)]
    assert found.y["train"].tolist() == ["a", "b"]
    assert found.y["test"].tolist() == ["a", "a"]
    d = series(path)
    assert (d.shape, d.classes, len(d.test)) == ((2, 3), ("a", "b"), 2)


def test_ts_files_of_values_are_regression(tmp_path):
    lines = "\n".join(f"{i},{i + 1}:{i + 0.25}" for i in range(8))
    d = series(write(tmp_path / "r.ts", f"@targetLabel true\n@data\n{lines}\n"))
    assert d.task == "value"
    assert float(d.train.targets["value"].max()) in (7.25, 6.25)


def test_arff_files_of_one_and_of_several_channels(tmp_path):
    found = read(write(tmp_path / "a.arff", ARFF))
    np.testing.assert_array_equal(found.parts["train"], np.array([[[1.5, 2]], [[np.nan, 4]]], np.float32))
    assert found.y["train"].tolist() == ["1", "2"]
    found = read(write(tmp_path / "b.arff", RELATIONAL))
    np.testing.assert_array_equal(found.parts["train"][0], np.array([[1, 2, 3], [4, 5, np.nan]], np.float32))
    assert found.y["train"].tolist() == ["walk", "run"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.ts", "hello\n", "is not a .ts file"),
        ("a.ts", "@data\n", "no series after @data"),
        ("a.ts", "@data\n1,two,3\n", "line 2: 'two' is not a number"),
        ("a.ts", "@data\n1,inf,3\n", "line 2: a value that is infinite"),
        ("a.ts", "@timestamps true\n@data\n(0,1)\n", "has time stamps"),
        ("a.arff", "@data\n1,2\n", "has no attributes"),
        ("a.arff", ARFF + "1,2\n", "line 9: expected 3 values, got 2"),
        ("a.ts", "@classlabel true a\n@data\n1,2:3,4:a\n1,2:a\n", "differ in the number of channels"),
        ("a.ts", "@\n@timestamps\n@data\n:\n", "have a single step"),
        ("a.arff", RELATIONAL + "x\n", "line 11: expected 2 values, got 1"),
        ("a.arff", RELATIONAL + "'1,2',3,walk\n", "line 11: expected 2 values, got 3"),
        ("a.xyz", "1", "holds no series"),
    ],
)
def test_bad_archive_files_are_errors(tmp_path, name, text, words):
    with pytest.raises((DataError, RequestError), match=words):
        series(write(tmp_path / name, text))


def test_parquet_is_read_as_a_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"id": [1, 1, 2, 2], "time": [0, 1, 0, 1], "v": [1.0, None, 3.0, 4.0], "label": ["a", "a", "b", "b"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    d = series(str(tmp_path / "t.parquet"), holdout=0)
    assert (d.shape, d.classes, d.train.labels.tolist()) == ((1, 2), ("a", "b"), [0, 1])
    assert d.train.x[0, 0].isnan().tolist() == [False, True]
