"""Text in tables: columns, labels, splits, quotation marks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslcli.data.sources.text_table import text_table
from sslcli.errors import DataError, RequestError
from tests.data.text.conftest import LINES, Read, notes, texts, write

ROWS = ["text,label", '"good, very ""good""",pos', "bad,neg", '"two\nlines",pos', "awful,neg"]


def test_csv_with_quotes(read_table: Read):
    dataset = read_table(ROWS, holdout=0)
    assert dataset.classes == ("neg", "pos")
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]  # type: ignore[union-attr]
    assert texts(dataset)[2] == "two lines"
    assert list(dataset.train.names or ())[2:] == ["line 4", "line 6"]
    assert "column of text: text; label: label" in notes(dataset)


def test_tsv_without_quoting_is_detected(read_table: Read):
    rows = ["sentence\tlabel", '"he said\t1', 'and she said "no"\t0', '"" what ?\t1', 'a b"\t0']
    dataset = read_table(rows, "t.tsv", tokenizer="bytes", holdout=0)
    assert texts(dataset) == ['"he said', 'and she said "no"', '"" what ?', 'a b"']


def test_tsv_with_quoting_is_detected(read_table: Read):
    rows = ["sentence\tlabel", '"he\tsaid"\t1', '"a ""b"""\t0', "two\t0", '"over\nlines"\t1']
    dataset = read_table(rows, "t.tsv", tokenizer="bytes", holdout=0)
    assert texts(dataset) == ["he\tsaid", 'a "b"', "two", "over\nlines"]


def test_quoting_can_be_chosen(read_table: Read):
    rows = ["sentence\tlabel", '"he said"\t1', "no\t0"]
    assert texts(read_table(rows, "t.tsv", tokenizer="bytes", quoting="none", holdout=0))[0] == '"he said"'
    assert texts(read_table(rows, "t.tsv", tokenizer="bytes", holdout=0))[0] == "he said"
    with pytest.raises(RequestError, match=r"dataset\.quoting"):
        read_table(rows, quoting="maybe")


def test_json_lines(read_table: Read):
    rows = [{"split": "train", "text": "ä 1", "label": 1}, {"split": "test", "text": "two", "label": 0}]
    rows += [{"split": "train", "text": "three", "label": None}, {"split": "unsup", "text": "four"}]
    rows += [{"split": "dev", "text": "five", "label": 0}]
    content = "\n\n".join(json.dumps(row) for row in rows)
    dataset = read_table(content, "t.jsonl", pretrain_on="unlabelled")
    assert dataset.train.labels.tolist() == [1, -1]  # type: ignore[union-attr]
    assert [texts(dataset, s) for s in ("train", "test", "unlabelled")] == [["ä 1", "three"], ["[UNK]"], ["four"]]
    assert "the column split defines the split: 2 train, 1 test, 1 unsup, 1 dev" in notes(dataset)
    assert "val: 1 document not used" in notes(dataset)


def test_columns_can_be_named(read_table: Read):
    rows = ["id,body_of_it,mood", "1,one two,glad", "2,three,sad"]
    with pytest.raises(RequestError, match="no column named text") as error:
        read_table(rows)
    assert "dataset.text=NAME" in error.value.message
    dataset = read_table(rows, text="body_of_it", label="mood", holdout=0)
    assert (texts(dataset)[0], dataset.classes) == ("one two", ("glad", "sad"))
    with pytest.raises(RequestError, match="no column bodyofit") as error:
        read_table(rows, text="bodyofit")
    assert error.value.hint == "did you mean body_of_it ?"


def test_one_column(read_table: Read):
    dataset = read_table(["remark", '"one, two"', "three"])
    assert texts(dataset) == ["one, two", "three"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_column_of_numbers_is_refused(read_table: Read, name: str):
    rows = ["text,label", "1,a", "2.5,b"] if name == "t.csv" else ['{"text": 1}', '{"text": 2}']
    with pytest.raises(DataError, match=r"holds numbers, where text|text is int, not a string"):
        read_table(rows, name)


def test_text_that_is_sometimes_a_number(read_table: Read):
    assert texts(read_table(["text", "1984", "a book"])) == ["1984", "a book"]


def test_rows_without_text_are_counted(read_table: Read):
    dataset = read_table(["text,label", ",a", "  ,b", "one,a", "two,b"], holdout=0)
    assert "2 empty rows left out" in notes(dataset)
    assert dataset.train.labels.tolist() == [0, 1]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="no row with text"):
        read_table(["text,label", ",a", ",b"])


def test_null_is_an_empty_cell(read_table: Read):
    rows = [{"text": text, "label": label} for text, label in (("one", "a"), (None, "b"), ("two", None), ("", "a"))]
    dataset = read_table("\n".join(map(json.dumps, rows)), "t.jsonl", holdout=0)
    assert texts(dataset) == ["one", "two"]
    assert dataset.train.labels.tolist() == [0, -1]  # type: ignore[union-attr]
    assert "2 empty rows left out" in notes(dataset)
    with pytest.raises(DataError, match="no row with text"):
        read_table('{"text": null}', "t.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2: not valid JSON"),
        ("[1, 2]", "line 2: expected an object"),
        ('{"label": 1}', "line 2: has no text"),
        ('{"text": ["a"]}', "line 2: text is list"),
        ('{"text": "a\\u0000b"}', "line 2: a null byte"),
        ('{"text": "a\\ud800b"}', "line 2: half of a surrogate pair"),
    ],
)
def test_bad_json_lines(read_table: Read, line: str, message: str):
    with pytest.raises(DataError, match=message):
        read_table(['{"text": "one", "label": 1}', line], "t.jsonl")


def test_a_json_array_is_refused_with_a_command(read_table: Read):
    with pytest.raises(DataError, match="one JSON array") as error:
        read_table('[{"text": "a"}]', "t.json")
    assert "jq" in str(error.value.hint)


def test_a_cell_of_megabytes_is_cut(read_table: Read):
    dataset = read_table(["text,label", "x" * (3 << 20) + ",a", "y,b"], tokenizer="bytes", holdout=0, max_bytes=1000)
    assert [len(dataset.train.read(i)) for i in range(2)] == [1000, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text,label\n", "no row with text"),
        ("text,label\na,b\nc\n", "line 3: expected 2 cells"),
        ("text,text\na,b\n", "two columns named text"),
        ('text,label\n"open,b\n', "open quotation mark|unexpected end"),
        (b"text,label\na,b\n\xff,c\n", "line 3, byte 15: 0xff is not UTF-8"),
        (b"text,label\na\0,b\n", "null bytes"),
    ],
)
def test_bad_tables(read_table: Read, content: str | bytes, message: str):
    with pytest.raises(DataError) as error:
        read_table(content)
    assert any(m in f"{error.value.message} {error.value.hint}" for m in message.split("|"))


def test_null_bytes_far_inside(read_table: Read):
    with pytest.raises(DataError, match=r"line 60002: a null byte|line 60,002: a null byte"):
        read_table(b"text,label\n" + b"some text,a\n" * 60_000 + b"a\0b,c\n")


def test_placeholder_labels_of_a_test_split(read_table: Read):
    rows = ["text,label,split", "a,1,train", "b,0,train", "c,-1,test", "d,-1,test"]
    dataset = read_table(rows)
    assert dataset.test is not None
    assert (dataset.classes, dataset.test.labels) == (("0", "1"), None)
    assert "all labels of test are -1" in notes(dataset)
    kept = read_table(["text,label", "a,1", "b,-1", "c,0"], holdout=0)
    assert kept.classes == ("-1", "0", "1")


def test_unlabelled_files(read_table: Read, tmp_path: Path):
    lines, more = write(tmp_path / "more.txt", LINES), write(tmp_path / "more.csv", ["text,x", "extra,1"])
    dataset = read_table(ROWS, unlabelled=[lines, more], holdout=0)
    assert dataset.unlabelled is not None
    assert (len(dataset.train), len(dataset.unlabelled)) == (4, 9)
    assert texts(dataset, "unlabelled")[-1] == "extra"
    assert len(read_table(ROWS, unlabelled="more.*", holdout=0).unlabelled or ()) == 9
    with pytest.raises(RequestError, match=r"dataset\.unlabelled=other\*"):
        read_table(ROWS, unlabelled="other*")
    with pytest.raises(DataError, match="has no column text"):
        read_table(ROWS, unlabelled=write(tmp_path / "bad.csv", ["y,x", "a,1"]))


def test_train_and_test_files(tmp_path: Path):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "test.csv", ["label,text", "pos,fine", "neg,bad"])
    dataset = text_table(str(tmp_path), tokenizer="words")
    assert dataset.test is not None
    assert dataset.test.labels.tolist() == [1, 0]  # type: ignore[union-attr]
    assert dataset.test.names[1] == "test.csv, line 3"  # type: ignore[index]


def test_a_column_named_set_need_not_be_a_split(read_table: Read):
    dataset = read_table(["text,set,label", "a,lego,x", "b,duplo,y"], holdout=0)
    assert len(dataset.train) == 2
    with pytest.raises(DataError, match="lego in the column of splits"):
        read_table(["text,split,label", "a,lego,x", "b,duplo,y"])


def test_parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": ["one two", None, "three"], "label": [1, 0, 0], "stars": [1.5, 2, 3]})
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = text_table(str(tmp_path / "t.parquet"), tokenizer="words", holdout=0)
    assert (texts(dataset), dataset.train.labels.tolist()) == (["one two", "three"], [1, 0])  # type: ignore[union-attr]
    assert dataset.train.names[1] == "row 3"  # type: ignore[index]
    with pytest.raises(DataError, match="holds numbers"):
        text_table(str(tmp_path / "t.parquet"), text="stars")
