"""Parquet files give the same data set as text, without guessing types."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import pytest
import torch

from sslcli.data.sources.table import table
from sslcli.errors import DataError, MachineError

from .conftest import N, notes, people, write


@pytest.fixture
def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    def save(columns, name="t.parquet", **options):
        pq.write_table(pyarrow.table(columns), tmp_path / name, **options)
        return str(tmp_path / name)

    return save


def columns_of(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


def test_file_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(MachineError, match="requires pyarrow") as error:
        table(str(tmp_path / "t.parquet"))
    assert "sslcli[table]" in error.value.hint


def test_parquet_equals_text(parquet, tmp_path):
    expected = table(write(tmp_path / "t.csv", people()))
    got = table(parquet(columns_of(people()), row_group_size=7))
    assert torch.equal(got.train.resident.tensor, expected.train.resident.tensor)
    assert got.preprocessor == expected.preprocessor
    assert got.train.name_of(0) == expected.train.name_of(0).replace("line 2", "row 1")
    x = expected.preprocessor.encode(parquet(columns_of(people())))
    assert torch.equal(x, expected.preprocessor.encode(str(tmp_path / "t.csv")))


def test_types_of_parquet_are_kept(parquet):
    columns = columns_of(people())
    columns["code"] = [["007", "12", "3"][i % 3] for i in range(N)]
    columns["digits"] = [["1", "2", "3"][i % 3] for i in range(N)]
    columns["flag"] = [i % 3 == 0 for i in range(N)]
    columns["gap"] = [None if i % 4 == 0 else i * 0.5 for i in range(N)]
    columns["day"] = [datetime.date(2024, 1, 1 + i % 3) for i in range(N)]
    dataset = table(parquet(columns), holdout=0)
    by_name = {c.name: c for c in dataset.preprocessor.columns}
    assert by_name["code"].categories == ("3", "007", "12")
    assert by_name["digits"].categories == ("1", "2", "3")  # text in the file
    assert by_name["flag"].categories == ("false", "true")
    assert by_name["gap"].categories is None
    assert by_name["day"].categories == ("2024-01-01", "2024-01-02", "2024-01-03")
    assert "gap 15 (25.0%)" in notes(dataset)
    assert "dates read as text: day" in notes(dataset)


def test_nested_column_is_refused_unless_dropped(parquet):
    path = parquet({**columns_of(people()), "words": [["a", "b"]] * N})
    with pytest.raises(DataError, match="column words holds list") as error:
        table(path)
    assert error.value.hint == "dataset.drop=[words]"
    assert "words" not in table(path, drop=["words"]).preprocessor.names


def test_damaged_parquet_is_refused(parquet, tmp_path):
    content = Path(parquet(columns_of(people()))).read_bytes()
    for damaged in (content[:-50], content[:4] + bytes(200) + content[204:]):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            table(str(tmp_path / "bad.parquet"))
