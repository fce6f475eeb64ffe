"""The preprocessor of text: documents to ids of tokens, and back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data import notify
from sslcli.data.dataset import ArraySource, Dataset, Preprocessor, Source
from sslcli.data.storage import Ragged
from sslcli.data.tables.find import stem
from sslcli.data.text.choose import tokenizer_from_json
from sslcli.data.text.lines import MAX_BYTES
from sslcli.data.text.readers.collector import Collector
from sslcli.data.text.readers.folder import read_folder
from sslcli.data.text.readers.rows import Format, TableReader
from sslcli.data.text.tokenizer import Tokenizer
from sslcli.errors import DataError, RequestError
from sslcli.nn.values import Tokens

MAX_LENGTH = 1 << 16  # tokens of a view
WINDOWS, MAX_WINDOWS = 8, 1024  # of a document: the default, and the limit
TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq")
HTML_BREAKS = ("keep", "space")
SELECT = "dataset=text_table dataset.path=FILE dataset.text=NAME in place of the file"  # FILE: the path of a table
HTML_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def clean_texts(texts: Sequence[str], html_breaks: str) -> Sequence[str]:
    """Texts as a tokenizer takes them: with `html_breaks=space`, without the line breaks of HTML."""
    return texts if html_breaks == "keep" else [HTML_BREAK.sub(" ", text) for text in texts]


@dataclass(frozen=True)
class TextPreprocessor(Preprocessor):
    """Documents as the ids of their content, (L,) int32 of any length, without [CLS], [SEP] and padding, which the views add.

    tokenizer: fitted to training documents, or read from a file; never fitted again. max_length: the tokens of a view, with [CLS],
    [SEP] and padding. html_breaks: keep, or space: a line break of HTML, `<br />`, is read as a space. windows: how many
    of `max_length` tokens the features of a document are averaged over, at most; it changes no pretraining. column: of the table
    that training documents were read from, which later tables must have; None for other training data, and for runs of earlier
    versions, with which a column is chosen by its name. id: the column of identifiers, which later tables must have, or None."""

    kind: ClassVar[str] = "text"
    tokenizer: Tokenizer
    max_length: int = 128
    html_breaks: str = "keep"
    windows: int = 1
    column: str | None = None
    id: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.max_length,)

    @property
    def values(self) -> Tokens:  # type: ignore[override]
        return self.tokenizer.values

    def to_json(self) -> dict[str, Any]:
        return {
            "max_length": self.max_length,
            "html_breaks": self.html_breaks,
            **({"windows": self.windows} if self.windows != 1 else {}),
            **({"column": self.column} if self.column is not None else {}),
            **({"id": self.id} if self.id is not None else {}),
            "tokenizer": self.tokenizer.to_json(),
        }

    def files(self) -> dict[str, bytes]:
        return {**super().files(), **self.tokenizer.files()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        length, tokenizer = content.get("max_length"), content.get("tokenizer")
        if not typecheck.matches_type(length, int) or not 3 <= (length or 0) <= MAX_LENGTH:
            raise ValueError(f"max_length: expected an integer from 3 to {MAX_LENGTH}")
        if not isinstance(tokenizer, dict):
            raise ValueError("expected a tokenizer")
        breaks = content.get("html_breaks", "keep")
        if breaks not in HTML_BREAKS:
            raise ValueError(f"html_breaks: expected {' or '.join(HTML_BREAKS)}")
        windows = content.get("windows", 1)
        if not typecheck.matches_type(windows, int) or not 1 <= windows <= MAX_WINDOWS:
            raise ValueError(f"windows: expected an integer from 1 to {MAX_WINDOWS}")
        column, id = content.get("column"), content.get("id")
        for key, name in (("column", column), ("id", id)):
            if not typecheck.matches_type(name, str | None):
                raise ValueError(f"{key}: expected a string")
        return cls(tokenizer_from_json(tokenizer, files), int(length or 0), str(breaks), windows, column, id)

    def encode(self, samples: Any) -> list[Tensor]:
        """The ids of each document, (L,) int32. Not cut to `max_length`: a view takes a part of a document.

        `samples`: a sequence of strings; or the path of a file with a document on each line, of a table with a column of text, or
        of a folder of .txt files, where empty lines and files are left out. DataError for anything else."""
        if isinstance(samples, (str, os.PathLike)):
            texts = self._read(os.fspath(samples))
        else:
            texts = list(samples) if isinstance(samples, Sequence) or hasattr(samples, "tolist") else [samples]
        if wrong := [t for t in texts if not isinstance(t, str)]:
            raise DataError(
                f"expected strings, or the path of a text file, got {type(wrong[0]).__name__}",
                "embed(['a text', 'another one'])",
            )
        return [torch.from_numpy(ids) for ids in self.tokenizer.encode(clean_texts(texts, self.html_breaks))]

    def source(self, samples: Any) -> Source:
        documents = self.encode(samples)
        ends = torch.tensor([0, *map(len, documents)]).cumsum(0)
        flat = torch.cat(documents) if documents else torch.empty(0, dtype=torch.int32)
        return ArraySource(Ragged(flat, ends, fill=self.values.pad))

    def _read(self, path: str) -> list[str]:
        if not os.path.exists(path):
            raise DataError(
                f"there is no file {path[:200]!r}: a single string is the path of a text file",
                "a text: embed(['a text'])",
            )
        collector, notes = Collector(MAX_BYTES), list[str]()
        if os.path.isdir(path):
            read_folder(path, "none", collector, notes)
        elif stem(path, TABLES) is not None:
            self.table_reader(collector, "none", notes).read(path, "train")
        else:
            collector.read_lines(path, "train")
        documents = collector.corpus(notes).documents
        for note in notes:
            notify.log(note)
        return [documents[i] for i in range(len(documents))]

    def table_reader(self, collector: Collector, label: str, notes: list[str], id: str | None = None) -> TableReader:
        """Reads tables that a user names for an encoder, with the identifiers in the column `id`."""
        text, own = self.column or "auto", self.column
        return TableReader(collector, Format(), text, label, True, notes, None, own, SELECT, id, trained_id=self.id)

    def decode(self, raw: Tensor | Sequence[Tensor]) -> list[str]:
        """Documents (N, L), or of different lengths, as text, as far as the vocabulary keeps it; padding, [CLS] and [SEP] are left
        out."""
        return [self.tokenizer.decode(row) for row in raw]

    def differences(self, other: Preprocessor) -> list[str]:
        if not isinstance(other, TextPreprocessor):
            return super().differences(other)
        other = replace(other, windows=self.windows, column=self.column, id=self.id)  # no training depends on them
        changed = []
        if self.tokenizer.describe() != other.tokenizer.describe():
            changed.append(f"the tokenizer was {self.tokenizer.describe()}, is {other.tokenizer.describe()}")
        elif self.tokenizer.files() != other.tokenizer.files():
            changed.append(f"the tokenizer ({self.tokenizer.describe()}) has another vocabulary")
        for key in ("max_length", "html_breaks"):
            if getattr(self, key) != getattr(other, key):
                changed.append(f"{key} was {getattr(self, key)}, is {getattr(other, key)}")
        return changed or (["its files differ"] if self.sha256 != other.sha256 else [])

    def configure(self, node: dict[str, Any], same_data: bool = False) -> dict[str, Any]:
        """The number of windows, the column of text and that of identifiers, where none is given."""
        node = {**node, "windows": self.windows} if node.get("windows", 1) is None else node
        node = {**node, "id": self.id} if self.id is not None and node.get("id", "") is None else node
        return {**node, "text": self.column} if self.column is not None and node.get("text") == "auto" else node

    def size_hint(self, shape: tuple[int, ...]) -> str | None:
        return f"dataset.max_length={self.max_length}" if shape != self.shape else None

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """A data set that was read with this tokenizer, with views of the length of this encoder. RequestError for others."""
        own = dataset.preprocessor
        if not isinstance(own, TextPreprocessor) or own.tokenizer.files() != self.tokenizer.files():
            raise RequestError(
                f"this encoder takes text of its own tokenizer ({self.tokenizer.describe()}); {dataset.name} was not read with it"
            )
        windowed = replace(self, windows=own.windows)
        return replace(dataset, shape=self.shape, values=self.values, preprocessor=windowed)
