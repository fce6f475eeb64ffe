"""Types of columns, missing values, and columns that are left out."""

from __future__ import annotations

import numpy as np
import pytest

from sslcli.data.tables.cells import CellFormat, canonical, number_options
from sslcli.errors import DataError, RequestError

from .conftest import N, notes, people


def with_column(name, values, n=N):
    return [{**row, name: values(i)} for i, row in enumerate(people(n))]


def types(dataset):
    return dataset.details["columns"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0),
        ("-1.5", -1.5),
        ("+2", 2),
        (".5", 0.5),
        ("5.", 5),
        ("1e3", 1000),
        ("0.10", 0.1),
        ("-0", 0),
        ("1E-2", 0.01),
    ],
)
def test_cell_is_a_number(cell, value):
    assert CellFormat().numbers([cell]).tolist() == [value]


@pytest.mark.parametrize(
    "cell", ["007", "-01", "1_000", "0x1f", "1,5", "1 000", "abc", "1\n2", "\u0661", "--1", "1e", "."]
)
def test_cell_is_text(cell):
    assert CellFormat().numbers([cell]) is None


@pytest.mark.parametrize(
    "marker", ["", " ", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A", "<NA>", " ? "]
)
def test_marker_of_missing_values(marker, read):
    assert np.isnan(CellFormat().numbers([marker])).all()
    dataset = read(with_column("x", lambda i: marker if i % 3 else i * i * 0.5), holdout=0)
    assert int(dataset.train.resident.tensor[:, -1].isnan().sum()) == N - N // 3
    assert f"x {N - N // 3} (66.7%)" in notes(dataset)


def test_further_markers_are_missing(read):
    rows = with_column("x", lambda i: [-999, "-999.0", "gone", i * i * 0.5][i % 4])
    dataset = read(rows, holdout=0, missing=[-999, "gone"])
    assert int(dataset.train.resident.tensor[:, -1].isnan().sum()) == 45
    assert types(dataset)["x"] == "number"


def test_formats_of_numbers():
    comma = CellFormat(",", ".")
    assert comma.numbers(["1.234,5", "2", "-3,25", ""])[:3].tolist() == [1234.5, 2, -3.25]
    assert comma.numbers(["1.23"]) is None
    assert CellFormat(".", ",").numbers(["1,234,567.5", "12"]).tolist() == [1234567.5, 12]
    assert CellFormat(".", ",").numbers(["1,23"]) is None
    assert CellFormat.parse("comma", "point") == comma
    for marks in (("ab", None), (".", "1"), (",", "comma")):
        with pytest.raises(RequestError):
            CellFormat.parse(*marks)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["3,14", "2", "1,5"], "dataset.decimal=comma"),
        (["1,234", "5,678,901"], "dataset.thousands=comma"),
        (["1,234.5", "99"], "dataset.thousands=comma"),
        (["1.234,5", "0,1"], "dataset.decimal=comma dataset.thousands=point"),
        (["1 234", "5"], "dataset.thousands=space"),
        (["1 234,5"], "dataset.decimal=comma dataset.thousands=space"),
        (["3,14", "abc"], None),
        (["007", "012"], None),
        (["2024-01-02"], None),
    ],
)
def test_number_format_is_recognized(texts, options):
    assert number_options(texts, CellFormat()) == options


def test_decimal_commas_are_refused_or_read(read):
    rows = with_column("x", lambda i: f'"{i * i},5"')
    with pytest.raises(DataError, match="column x holds numbers written as 0,5") as error:
        read(rows)
    assert "dataset.decimal=comma" in error.value.hint
    fixed = [{**row, "height": str(row["height"]).replace(".", ",")} for row in rows]
    text = ";".join(fixed[0]) + "\n" + "\n".join(";".join(map(str, row.values())) for row in fixed)
    dataset = read(text, decimal="comma", holdout=0)
    x = next(c for c in dataset.preprocessor.columns if c.name == "x")
    assert x.mean == pytest.approx(np.mean([i * i + 0.5 for i in range(N)]))


def test_codes_with_leading_zeros_stay_text(read):
    dataset = read(with_column("code", lambda i: ["007", "12", "100"][i % 3]), holdout=0)
    assert dataset.preprocessor.columns[-1].categories == ("007", "12", "100")
    assert "numbers with leading zeros read as categories: code" in notes(dataset)


def test_late_text_keeps_the_form_of_earlier_numbers(read, monkeypatch):
    monkeypatch.setattr("sslcli.data.tables.delimited.BLOCK_CELLS", 1)  # blocks of 16 rows
    dataset = read(with_column("x", lambda i: "a" if i == N - 1 else ["1.50", "2"][i % 2]), holdout=0, label="none")
    assert dataset.preprocessor.columns[-1].categories == ("1.5", "2", "a")  # 1.50 is the number 1.5
    raw = read(with_column("x", lambda i: "a1" if i == N - 1 else ["01.0", "2"][i % 2]), holdout=0, label="none")
    assert raw.preprocessor.columns[-1].categories == ("01.0", "2", "a1")


def test_integers_of_few_values_are_named_as_ambiguous(read):
    rows = with_column("rooms", lambda i: 1 + i % 5)
    dataset = read(rows, holdout=0)
    assert types(dataset)["rooms"] == "number"
    assert "rooms (1..5)" in notes(dataset)
    assert "dataset.categorical=[rooms]" in notes(dataset)
    chosen = read(rows, holdout=0, categorical=["rooms"])
    assert chosen.preprocessor.columns[-1].categories == ("1", "2", "3", "4", "5")
    assert "read as numbers: rooms" not in notes(chosen)
    assert "rooms (" not in notes(read(rows, holdout=0, numeric=["rooms"]))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (lambda i: f"user {i}", "text, 60 different values in 60 rows"),
        (lambda i: f"2024-01-{i % 28 + 1:02} 10:{i:02}", "dates, 60 different values in 60 rows"),
        (lambda i: "same", "constant"),
        (lambda i: 3.5, "constant"),
        (lambda i: "", "no value in any row"),
        (lambda i: i + 100, "row numbers"),
    ],
    ids=["id", "date", "text", "number", "empty", "index"],
)
def test_column_without_information_is_dropped(read, values, reason):
    dataset = read(with_column("x", values), holdout=0)
    assert "x" not in dataset.preprocessor.names
    assert dataset.details["dropped"]["x"] == reason
    assert f"x ({reason})" in notes(dataset)


def test_dates_are_named_with_a_hint(read):
    dataset = read(with_column("day", lambda i: f"{i % 3 + 1}.2.2024"), holdout=0)
    assert types(dataset)["day"] == "category"
    assert "dates read as text: day; write them as numbers" in notes(dataset)


def test_identifier_of_integers_causes_a_warning(read):
    dataset = read([{**row, "id": (i * 7919) % 10007} for i, row in enumerate(people(200))], holdout=0)
    assert "each value of id occurs once; leave identifiers out: dataset.id=id, which names rows by it" in notes(
        dataset
    )
    assert "id" not in read([{**r, "id": i * 3} for i, r in enumerate(people(200))], drop=["id"]).preprocessor.names


def test_outliers_that_dominate_the_scale_cause_a_warning(read):
    dataset = read(with_column("x", lambda i: -1e9 if i == 5 else i * 0.5), holdout=0)
    assert "a few outliers dominate the scale of column x" in notes(dataset)


@pytest.mark.parametrize("value", ["1e308", "inf", "-inf", "1e999", "-Infinity"])
def test_number_beyond_float32_is_refused_by_line(read, value):
    rows = with_column("x", lambda i: value if i == 7 else i * 0.5)
    with pytest.raises(DataError, match=r"line 9: column x holds") as error:
        read(rows)
    assert "dataset.missing=[" in error.value.hint
    marker = error.value.hint.partition("dataset.missing=[")[2].partition("]")[0]
    for given in (marker, float(value)):  # on the command line, and as YAML reads it
        dataset = read(rows, holdout=0, missing=[given])
        assert int(dataset.train.resident.tensor[:, -1].isnan().sum()) == 1


def test_large_numbers_keep_their_differences(read):
    dataset = read(with_column("time", lambda i: 1_700_000_000 + i * i), holdout=0)
    expected = np.array([i * i for i in range(N)], dtype=np.float64)
    expected = (expected - expected.mean()) / expected.std()
    assert np.allclose(dataset.train.resident.tensor[:, -1].numpy(), expected, atol=1e-6)
    assert dataset.preprocessor.decode(dataset.train.resident.tensor[:3])[2]["time"] == pytest.approx(
        1_700_000_004, abs=1e-3
    )


def test_text_in_a_numeric_column_is_refused(read):
    with pytest.raises(DataError, match="column x holds text: 'a' in line 2, 'b' in line 4"):
        read(with_column("x", lambda i: {0: "a", 2: "b"}.get(i, i)), numeric=["x"])


def test_only_the_most_frequent_categories_are_kept(read):
    dataset = read(with_column("x", lambda i: "abcd"[min(i % 7, 3)]), holdout=0, max_categories=2, label="none")
    x = dataset.preprocessor.columns[-1]
    assert "d" in x.categories
    assert len(x.categories) == 2
    assert "only the 2 most frequent categories are kept of job 3, x 4" in notes(dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numeric": ["agee"]}, "dataset.numeric: .* has no column agee"),
        ({"drop": ["nothing"]}, "dataset.drop: .* has no column nothing"),
        ({"numeric": ["age"], "categorical": ["age"]}, "age is in dataset.numeric and in dataset.categorical"),
        ({"group": "who"}, "dataset.group: .* has no column who"),
        ({"label": "lable"}, "dataset.label: .* has no column lable"),
        ({"task": "regress"}, "dataset.task: expected auto, classes or value"),
        ({"max_categories": 0}, "at least 1"),
        ({"holdout": 2}, "dataset.holdout"),
        ({"pretrain_on": "x"}, "dataset.pretrain_on"),
    ],
)
def test_invalid_option_is_refused(read, options, message):
    with pytest.raises(RequestError, match=message):
        read(people(), **options)


def test_table_without_a_usable_column_is_refused(read):
    with pytest.raises(DataError, match=r"has no column to learn from: a .row numbers., b .constant."):
        read("a,b\n" + "\n".join(f"{i},1" for i in range(20)))


@pytest.mark.parametrize(
    ("text", "name"),
    [("1.0", "1"), ("+1", "1"), ("-0", "0"), ("1.50", "1.5"), ("007", "007"), ("1e3", "1000"), ("a", "a")],
)
def test_category_of_a_number_has_one_name(text, name):
    assert canonical(text) == name


def test_few_texts_in_a_column_of_numbers_are_reported(read):
    """They make it a column of categories, or one that is left out."""
    rows = with_column("x", lambda i: {7: "forty", 30: "not known"}.get(i, i * 0.5))
    warnings = [note for note in read(rows, holdout=0).notes if "values of x are numbers" in note]
    assert len(warnings) == 1, warnings
    assert warnings[0].startswith(
        f"warning: {N - 2} of {N} values of x are numbers, others are text: 'forty' in line 9,"
    )
    assert "'dataset.missing=[forty,\"not known\"]'" in warnings[0]
    numbers = read(rows, holdout=0, missing=["forty", "not known"])
    assert types(numbers)["x"] == "number"
    assert not [note for note in numbers.notes if "are numbers, others" in note]


@pytest.mark.parametrize(
    "values",
    [lambda i: f"a{i % 5}", lambda i: i if i % 2 else "x", lambda i: i % 7 if i else "x"],
    ids=["texts", "half of them", "few different numbers"],
)
def test_columns_of_categories_are_not_taken_for_numbers(read, values):
    assert not [note for note in read(with_column("x", values), holdout=0).notes if "are numbers, others" in note]
