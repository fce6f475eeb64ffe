"""Files with a document on each line: what is a document, where a file is refused, and what is cut."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslcli.data.text import lines
from sslcli.errors import DataError, RequestError
from tests.data.text.conftest import LINES, Read, notes, preprocessor, texts, write


def test_each_line_is_a_document(read_lines: Read):
    dataset = read_lines(LINES)
    assert texts(dataset)[1] == "a dog barked at the cat!"
    assert (len(dataset.train), dataset.test, dataset.classes, dataset.shape) == (4, None, (), (128,))
    assert list(dataset.train.names or ()) == ["line 1", "line 2", "line 3", "line 4"]


def test_empty_lines_are_counted(read_lines: Read):
    dataset = read_lines("\n one\r\n\r\n\t \ntwo three\n\n")
    assert texts(dataset) == ["one", "two three"]
    assert list(dataset.train.names or ()) == ["line 2", "line 5"]
    assert "4 empty lines left out" in notes(dataset)


def test_byte_order_mark_and_missing_end(read_lines: Read):
    assert texts(read_lines(b"\xef\xbb\xbfone\ntwo")) == ["one", "two"]


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_compressed(read_lines: Read, compress: Callable[[bytes], bytes]):
    assert texts(read_lines(compress("\n".join(LINES).encode()), "t.txt.gz"))[3] == "the mat is red."


def test_truncated_gzip_is_damaged(read_lines: Read):
    with pytest.raises(DataError, match="damaged or incomplete"):
        read_lines(gzip.compress("\n".join(LINES * 99).encode())[:-20])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_blocks_divide_lines_anywhere(read_lines: Read, monkeypatch: pytest.MonkeyPatch, size: int):
    content = "é☃ one\n\n  \ntwo 😀 three\r\n" * 3 + "end"
    whole = texts(read_lines(content))
    monkeypatch.setattr(lines, "BLOCK", size)
    dataset = read_lines(content)
    assert texts(dataset) == whole
    assert list(dataset.train.names or ())[-2:] == ["line 12", "line 13"]


@pytest.mark.parametrize("block", [4, 1 << 20])
def test_invalid_utf8_is_refused_with_its_place(read_lines: Read, monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(lines, "BLOCK", block)
    with pytest.raises(DataError, match=r"line 3, byte 14: 0xe9 is not UTF-8") as error:
        read_lines("né1\nné2\nabcd".encode() + b"\xe9 f\nmore\n")
    assert "iconv" in str(error.value.hint)


def test_incomplete_last_character(read_lines: Read):
    with pytest.raises(DataError, match="line 2, byte 4: the last character is incomplete"):
        read_lines(b"one\n\xe2\x98")


def test_null_bytes_are_refused(read_lines: Read):
    with pytest.raises(DataError, match="line 2, byte 6: a null byte"):
        read_lines(b"one\ntw\0o\n")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("one\ntwo".encode("utf-16"), "UTF-16"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04rest", "an archive"),
        (b"<!doctype html><html>", "a web page"),
    ],
)
def test_other_files_are_named(read_lines: Read, content: bytes, what: str):
    with pytest.raises(DataError, match=what):
        read_lines(content)


@pytest.mark.parametrize("content", ["", "\n\n", " \t\r\n \n"])
def test_files_without_text(read_lines: Read, content: str):
    with pytest.raises(DataError, match="holds no text"):
        read_lines(content)


@pytest.mark.parametrize("block", [11, 1 << 22])
def test_long_lines_are_cut_before_a_character(read_lines: Read, monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(lines, "BLOCK", block)
    dataset = read_lines("é" * 100 + "\nshort\n" + "é" * 9, tokenizer="bytes", max_bytes=17)
    assert texts(dataset) == ["é" * 8, "short", "é" * 8]
    assert "warning: 2 documents longer than 17 bytes cut" in notes(dataset)


def test_a_line_of_50_mb_is_one_short_sample(read_lines: Read):
    dataset = read_lines(b"word " * 10_000_000 + b"\nend\n", tokenizer="bytes", max_bytes=1000)
    assert dataset.train.resident is not None
    assert dataset.train.resident.nbytes < 1 << 20
    assert [len(dataset.train.read(i)) for i in range(2)] == [1000, 3]


def test_equal_documents_are_reported(read_lines: Read):
    assert "all documents are equal" in notes(read_lines(["same text"] * 20))


def test_test_documents_in_train_are_reported(read_lines: Read, tmp_path):
    test = write(tmp_path / "test.txt", [LINES[0], "another one"])
    dataset = read_lines(LINES, test=test)
    assert "1 test document of 2 also in train" in notes(dataset)
    assert texts(dataset, "test")[0] == LINES[0].lower()
    assert list(dataset.test.names) == ["test.txt, line 1", "test.txt, line 2"]


def test_holdout_without_labels(read_lines: Read):
    dataset = read_lines([f"document {i}" for i in range(20)], holdout=0.25, split_seed=3)
    assert (len(dataset.train), len(dataset.test or ()), len(dataset.split)) == (15, 5, 16)
    assert not set(texts(dataset)) & set(texts(dataset, "test"))


def test_the_vocabulary_is_of_training_text_alone(read_lines: Read):
    dataset = read_lines([f"w{i}" for i in range(20)], holdout=0.5)
    words = preprocessor(dataset).tokenizer.pieces(np.arange(5, dataset.values.size))  # type: ignore[attr-defined]
    assert sorted(words) == sorted(texts(dataset))
    assert set(texts(dataset, "test")) == {"[UNK]"}


def test_the_fingerprint_depends_on_the_text_alone(read_lines: Read):
    first, other = read_lines(LINES), read_lines([*LINES[:3], "The mat is blue."])
    assert read_lines(LINES, "b.txt", tokenizer="bytes").fingerprint == first.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 2}, "dataset.max_length"),
        ({"max_bytes": 1}, "dataset.max_bytes"),
        ({"html_breaks": "x"}, "dataset.html_breaks"),
        ({"document": "page"}, "dataset.document"),
        ({"pretrain_on": "x"}, "dataset.pretrain_on"),
        ({"vocabulary": 5}, "dataset.vocabulary"),
        ({"tokenizer": "byte"}, "did you mean dataset.tokenizer=bytes"),
        ({"tokenizer": "bytes", "lowercase": True}, "does not apply"),
    ],
)
def test_invalid_options(read_lines: Read, options: dict[str, object], message: str):
    with pytest.raises(RequestError) as error:
        read_lines(LINES, **options)
    assert message in f"{error.value.message} {error.value.hint}"


def test_html_breaks(read_lines: Read):
    content = ["one<br /><br/>two", "three"]
    kept, replaced = read_lines(content), read_lines(content, html_breaks="space")
    assert "2 line breaks of HTML (<br />) kept as text" in notes(kept)
    assert preprocessor(kept).tokenizer.pieces(kept.train.read(0))[:5] == ["one", "<", "br", "/", ">"]
    assert texts(replaced)[0] == "one two"
    assert preprocessor(replaced).encode(content)[0].tolist() == replaced.train.read(0).tolist()


@pytest.mark.parametrize("name", ["t.csv", "t.TSV", "t.jsonl", "t.csv.gz", "t.jsonl.xz", "t.txt"])
def test_tables_are_read_with_a_warning(read_lines: Read, tmp_path: Path, name: str):
    """Plain or compressed, as training or test split."""
    content = b"text,label\none,a\ntwo,b\n"
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    dataset = read_lines(pack(content), name)
    assert len(dataset.train) == 3
    assert ("dataset=text_table reads tables" in notes(dataset)) == (name != "t.txt")
    more = read_lines(LINES, "train.txt", test=write(tmp_path / name, pack(content)))
    assert ("dataset=text_table reads tables" in notes(more)) == (name != "t.txt")
