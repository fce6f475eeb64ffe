"""Text: a file with a document on each line, or a folder of .txt files with a document in each."""

from __future__ import annotations

import os

import numpy as np

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import content_hash
from sslcli.data.fingerprint import fingerprint as make_fingerprint
from sslcli.data.folders.paths import require_path, require_regular
from sslcli.data.subset import check_pretrain_on
from sslcli.data.text.build import TEST, TRAIN, Corpus, Options, build_dataset
from sslcli.data.text.documents import DocumentsBuilder
from sslcli.data.text.lines import LineReader, TextFile
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import DataError

WHAT = "a text file with a document on each line, or a folder of .txt files"


def text_lines(
    path: str | None = None,
    name: str = "text",
    test: str | None = None,
    tokenizer: str = "auto",
    vocabulary: int = 8192,
    lowercase: bool | None = None,
    max_length: int = 128,
    max_bytes: int = 1 << 20,
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "all",
    like: TextPreprocessor | None = None,
) -> Dataset:
    """A data set of documents as ids of tokens, of the modality "text"."""
    check_pretrain_on(pretrain_on)
    options = Options(tokenizer, vocabulary, lowercase, max_length, holdout, split_seed, pretrain_on)
    notes: list[str] = []
    files = [require_regular(require_path(path, WHAT))]
    if test is not None:
        files.append(require_regular(require_path(test, WHAT, "dataset.test")))
    builder = DocumentsBuilder(max_bytes)
    reader = LineReader(builder)
    counts = [0]
    for file in files:
        reader.read(TextFile(file))
        counts.append(len(builder))
        if counts[-1] == counts[-2]:
            raise DataError(f"{file} holds no text", "expected a document on each line")
    notes.append(f"{plural(len(builder), 'document')} of {', '.join(map(os.path.basename, files))}")
    if reader.empty:
        notes.append(f"{plural(reader.empty, 'empty line')} left out")
    if builder.cut:
        notes.append(f"warning: {plural(builder.cut, 'document')} cut to {max_bytes:,} bytes (dataset.max_bytes)")
    parts = np.repeat([TRAIN, TEST][: len(files)], np.diff(counts))
    corpus = Corpus(builder.build(), parts)
    return build_dataset(name, corpus, options, notes, make_fingerprint(len(parts), map(content_hash, files)), like)
