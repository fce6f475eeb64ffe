from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sslcli.data.dataset import Dataset
from sslcli.data.sources.text_lines import text_lines
from sslcli.data.sources.text_table import text_table
from sslcli.data.text.preprocessor import TextPreprocessor

LINES = ["The cat sat on the mat.", "A dog barked at the cat!", "Birds sing; fish do not.", "The mat is red."]


def write(path: Path, content: str | bytes | list[str]) -> str:
    text = "\n".join(content) + "\n" if isinstance(content, list) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


Read = Callable[..., Dataset]


@pytest.fixture
def read_lines(tmp_path: Path) -> Read:
    """read_lines(content, **options): the data set of a file with this content, tokenized as words."""

    def read(content: str | bytes | list[str], name: str = "t.txt", **options: object) -> Dataset:
        path = write(tmp_path / name, content)
        return text_lines(path, **{"tokenizer": "words", **options})  # type: ignore[arg-type]

    return read


@pytest.fixture
def read_table(tmp_path: Path) -> Read:
    """read_table(content, name, **options): the data set of a table with this content, tokenized as words."""

    def read(content: str | bytes | list[str], name: str = "t.csv", **options: object) -> Dataset:
        path = write(tmp_path / name, content)
        return text_table(path, **{"tokenizer": "words", **options})  # type: ignore[arg-type]

    return read


def preprocessor(dataset: Dataset) -> TextPreprocessor:
    assert isinstance(dataset.preprocessor, TextPreprocessor)
    return dataset.preprocessor


def texts(dataset: Dataset, split: str = "train") -> list[str]:
    """The documents of a split, decoded."""
    source = getattr(dataset, split)
    return [preprocessor(dataset).tokenizer.decode(source.read(i)) for i in range(len(source))]


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)
