"""Folders of text: classes and splits by the names of folders and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcli.data.sources.text_lines import text_lines
from sslcli.errors import DataError, RequestError
from tests.data.text.conftest import LINES, notes, texts, write


def reviews(root: Path, unlabelled: bool = False) -> str:
    """A folder in the form of the movie reviews of Maas et al. (ACL 2011)."""
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            for i in range(3):
                write(root / split / label / f"{i}.txt", f"a {label} review\nnumber {i} of {split}")
    if unlabelled:
        write(root / "train" / "unsup" / "0.txt", "nobody knows")
    return str(root)


def test_each_file_is_a_document_with_its_class(tmp_path: Path):
    dataset = text_lines(reviews(tmp_path), tokenizer="words")
    assert dataset.classes == ("neg", "pos")
    assert (len(dataset.train), dataset.train.labels.tolist()) == (6, [0, 0, 0, 1, 1, 1])  # type: ignore[union-attr]
    assert dataset.test is not None
    assert dataset.test.names[5] == "test/pos/2.txt"  # type: ignore[index]
    assert texts(dataset, "test")[5] == "a pos review number 2 of [UNK]"


def test_unsup_is_the_unlabeled_split(tmp_path: Path):
    dataset = text_lines(reviews(tmp_path, unlabelled=True), tokenizer="words", pretrain_on="unlabelled")
    assert (dataset.classes, len(dataset.train)) == (("neg", "pos"), 6)
    assert texts(dataset, "unlabelled") == ["nobody knows"]
    assert "unsup/ read as the unlabeled split" in notes(dataset)


def test_class_folders_are_held_out_by_class(tmp_path: Path):
    dataset = text_lines(reviews(tmp_path) + "/train", tokenizer="words", holdout=0.34)
    assert dataset.test is not None
    assert dataset.test.labels.bincount().tolist() == [2, 1]  # type: ignore[union-attr]
    assert "documents" in notes(dataset)
    assert "image" not in notes(dataset)


def test_label_none(tmp_path: Path):
    dataset = text_lines(reviews(tmp_path), tokenizer="words", label="none")
    assert (dataset.classes, dataset.train.labels) == ((), None)


def test_files_named_as_splits_hold_lines(tmp_path: Path):
    for name, lines in (("train", LINES), ("test", LINES[:1]), ("unlabeled", LINES[:2])):
        write(tmp_path / f"{name}.txt", lines)
    dataset = text_lines(str(tmp_path), tokenizer="words")
    assert [len(s) for s in (dataset.train, dataset.test, dataset.unlabelled) if s] == [4, 1, 6]


def test_document_file_reads_them_whole(tmp_path: Path):
    write(tmp_path / "train.txt", LINES)
    assert len(text_lines(str(tmp_path), tokenizer="words", document="file").train) == 1
    assert len(text_lines(str(tmp_path), tokenizer="words", document="line").train) == 4


def test_a_pattern_names_several_files(tmp_path: Path):
    for i in range(3):
        write(tmp_path / f"part{i}.txt", LINES[i : i + 1])
    dataset = text_lines(str(tmp_path / "part*.txt"), tokenizer="words")
    assert texts(dataset)[2] == LINES[2].lower()
    assert dataset.train.names[2] == "part2.txt, line 1"  # type: ignore[index]
    with pytest.raises(RequestError, match="no file matches"):
        text_lines(str(tmp_path / "other*.txt"))


def test_empty_files_are_counted(tmp_path: Path):
    write(tmp_path / "a.txt", " \n\n")
    write(tmp_path / "b.txt", "text")
    dataset = text_lines(str(tmp_path), tokenizer="words")
    assert texts(dataset) == ["text"]
    assert "1 empty file left out" in notes(dataset)


def test_invalid_utf8_names_the_file(tmp_path: Path):
    write(tmp_path / "a.txt", "fine")
    write(tmp_path / "b.txt", b"first\nbroken \xff")
    with pytest.raises(DataError, match=r"b\.txt, line 2, byte 13: 0xff is not UTF-8"):
        text_lines(str(tmp_path))


def test_a_folder_without_text(tmp_path: Path):
    with pytest.raises(DataError, match="it is empty"):
        text_lines(str(tmp_path))
    write(tmp_path / "t.csv", "text\n")
    with pytest.raises(DataError, match=r"it contains 1 \.csv") as error:
        text_lines(str(tmp_path))
    assert "dataset=text_table" in str(error.value.hint)


def test_unknown_label_rule(tmp_path: Path):
    with pytest.raises(RequestError, match=r"dataset\.label: expected"):
        text_lines(reviews(tmp_path), label="stars")
