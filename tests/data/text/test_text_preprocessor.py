"""The preprocessor of text: kept with a run, used for other data, and strict about files of unknown origin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslcli.data import preprocess
from sslcli.data.sources.text_lines import text_lines
from sslcli.data.text.capitals import capitals
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import DataError, RequestError, TrainingError
from tests.data.text.conftest import LINES, Read, notes, preprocessor, texts, write


@pytest.fixture
def fitted(read_lines: Read) -> TextPreprocessor:
    return preprocessor(read_lines(LINES, max_length=12))


def save(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        write(folder / "preprocessor" / name, content)
    return folder


def test_files_restore_it(fitted: TextPreprocessor, tmp_path: Path):
    again = preprocess.load(save(tmp_path, fitted.files()), fitted.sha256)
    assert isinstance(again, TextPreprocessor)
    assert (again.sha256, again.shape, again.values) == (fitted.sha256, (12,), fitted.values)
    assert fitted.differences(again) == []


def test_another_vocabulary_is_noticed(fitted: TextPreprocessor, tmp_path: Path):
    files = fitted.files()
    other = {**files, "vocabulary.txt": files["vocabulary.txt"].replace(b"cat", b"dag")}
    with pytest.raises(TrainingError, match="SHA-256"):
        preprocess.load(save(tmp_path, other), fitted.sha256)
    changed = preprocess.load(tmp_path)
    assert fitted.differences(changed) == ["the tokenizer (words, 24 tokens, lower case) has another vocabulary"]


def test_differences_name_the_tokenizer(fitted: TextPreprocessor):
    other = preprocessor(capitals(tokenizer="bytes"))
    assert fitted.differences(other) == [
        "the tokenizer was words, 24 tokens, lower case, is bytes of UTF-8, 261 tokens",
        "max_length was 12, is 24",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_length", 2),
        ("max_length", "9"),
        ("max_length", 1 << 30),
        ("html_breaks", "x"),
        ("tokenizer", None),
        ("tokenizer", {"kind": "pickle"}),
        ("tokenizer", {"kind": "words"}),
        ("tokenizer", {"kind": "library"}),
    ],
)
def test_invalid_json_is_refused(fitted: TextPreprocessor, tmp_path: Path, key: str, value: object):
    content = {**json.loads(fitted.files()["preprocessor.json"]), key: value}
    files = {**fitted.files(), "preprocessor.json": json.dumps(content).encode()}
    with pytest.raises(TrainingError, match="is not valid"):
        preprocess.load(save(tmp_path, files))


@pytest.mark.parametrize("content", [b"", b"cat\ndog", b"\xff", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na"])
def test_invalid_vocabularies_are_refused(fitted: TextPreprocessor, tmp_path: Path, content: bytes):
    with pytest.raises(TrainingError, match="is not valid"):
        preprocess.load(save(tmp_path, {**fitted.files(), "vocabulary.txt": content}))


def test_encode_strings_and_files(fitted: TextPreprocessor, tmp_path: Path):
    ids = fitted.encode(LINES[:2])
    assert [x.dtype for x in ids] == [torch.int32] * 2
    assert fitted.decode(torch.stack([ids[0], ids[0]])) == ["the cat sat on the mat."] * 2
    places = [write(tmp_path / "t.txt", LINES[:2]), write(tmp_path / "t.csv", ["text", *LINES[:2]])]
    write(tmp_path / "folder" / "a.txt", LINES[0])
    write(tmp_path / "folder" / "b.txt", LINES[1])
    for place in (*places, tmp_path / "folder"):
        assert all(torch.equal(a, b) for a, b in zip(fitted.encode(place), ids, strict=True))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([1, 2], "got int"),
        (["a", None], "got NoneType"),
        (7, "got int"),
        (torch.zeros(2, 3), "expected strings"),
        ("no such file", "a single string is the path"),
    ],
)
def test_encode_refuses_other_types(fitted: TextPreprocessor, samples: object, message: str):
    with pytest.raises(DataError, match=message):
        fitted.encode(samples)


def test_like_is_used_instead_of_fitting(fitted: TextPreprocessor, tmp_path: Path):
    path = write(tmp_path / "other.txt", ["unknown cat"])
    dataset = text_lines(path, tokenizer="bytes", max_length=99, like=fitted)
    assert (dataset.preprocessor, dataset.shape) == (fitted, (12,))
    assert texts(dataset) == ["[UNK] cat"]
    assert "that of the run or encoder" in notes(dataset)
    assert "50.00% of the tokens are [UNK]" in notes(dataset)


def test_adapt_takes_data_of_the_same_tokenizer_only(fitted: TextPreprocessor, read_lines: Read):
    same = fitted.adapt(read_lines(LINES, max_length=99), [])
    assert (same.shape, same.preprocessor) == ((12,), fitted)
    with pytest.raises(RequestError, match="its own tokenizer"):
        fitted.adapt(read_lines(LINES, tokenizer="bytes"), [])
