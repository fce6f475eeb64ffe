"""Text files with a document on each line, folders of .txt files with a document in each, and tables with a column of text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sslcli.console import escape, plural
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.storage import Ragged
from sslcli.data.tables.find import find_files, stem
from sslcli.data.text.build import Options, build_dataset
from sslcli.data.text.corpus import TRAIN
from sslcli.data.text.lines import MAX_BYTES
from sslcli.data.text.preprocessor import TABLES, TextPreprocessor
from sslcli.data.text.readers.collector import Collector, LineNames
from sslcli.data.text.readers.folder import is_text_name
from sslcli.data.user_files.samples import (
    EMPTY,
    LISTED,
    FilePart,
    Unreadable,
    UserFiles,
    join,
    list_files,
    none_readable,
)
from sslcli.errors import DataError, RequestError, listing

ENDINGS = (*TABLES, ".json")
EXPECTED = "text files (.txt), a folder of them, or tables with a column of text (.csv, .tsv, .jsonl, .parquet)"


def read_text_files(paths: Sequence[str], preprocessor: TextPreprocessor, notes: list[str]) -> UserFiles:
    """All documents are in memory, as ids of tokens. RequestError for files that are no text."""
    files: list[str] = []
    for path in paths:
        if os.path.isdir(path) and not _has_text(path):
            files += [file for part in find_files(path, None, notes, ENDINGS, EXPECTED).values() for file in part]
        else:
            files.append(path)
    if other := next(
        (f for f in files if not os.path.isdir(f) and not is_text_name(f) and stem(f, ENDINGS) is None), None
    ):
        raise RequestError(f"{escape(other)} is no text, which this encoder takes", f"expected {EXPECTED}")
    parts, unreadable = list[FilePart](), Unreadable()
    for file in files:
        try:
            parts += (
                _read_folder(file, preprocessor, unreadable) if os.path.isdir(file) else [_read(file, preprocessor)]
            )
        except DataError as error:
            unreadable.add(file, error)
    if not parts:
        raise none_readable(unreadable)
    notes += unreadable.notes
    return join(parts, unreadable)


def _has_text(folder: str) -> bool:
    return any(is_text_name(name) for _, _, names in os.walk(folder) for name in names)


def _read_folder(path: str, preprocessor: TextPreprocessor, unreadable: Unreadable) -> list[FilePart]:
    """The documents in the .txt files below a folder, where there are any; the others become `unreadable`."""
    collector, n = Collector(MAX_BYTES), 0
    for file, _ in list_files(path, is_text_name, "text files", unreadable):
        try:
            if collector.read_file(file, os.path.relpath(file, path)):
                n += 1
            else:
                unreadable[file] = "the file holds no text"
        except DataError as error:
            unreadable.add(file, error)
    return [_part(path, collector, preprocessor, [], folder=True)] if n else []


def _read(path: str, preprocessor: TextPreprocessor) -> FilePart:
    collector, notes = Collector(MAX_BYTES), list[str]()
    if is_text_name(path):
        collector.read_lines(path, "train")
    else:
        preprocessor.table_reader(collector, "auto", notes, preprocessor.id).read(path, "train")
    return _part(path, collector, preprocessor, notes)


def _part(
    path: str, collector: Collector, preprocessor: TextPreprocessor, notes: list[str], folder: bool = False
) -> FilePart:
    corpus = collector.corpus(notes)
    corpus.parts[:] = TRAIN
    options = Options(holdout=0, windows=preprocessor.windows)
    dataset = build_dataset("files", corpus, options, notes, preprocessor)
    empty = collector.empty_lines.take()
    if len(empty) and isinstance(corpus.names, LineNames):
        names, places = corpus.names.with_lines(empty, collector.empty_ids)
        dataset = _with_empty(dataset, names, places)
        where = listing((f"{line:,}" for line in empty[:LISTED].tolist()), LISTED)
        more = f" and {len(empty) - LISTED:,} more" if len(empty) > LISTED else ""
        lines = names.word if len(empty) == 1 else f"{names.word}s"
        dataset.notes.append(
            f"warning: {escape(path)}: {plural(len(empty), 'empty document')}, in {lines} {where}{more}"
        )
    return FilePart(path, dataset, folder)


def _with_empty(dataset: Dataset, names: LineNames, places: np.ndarray) -> Dataset:
    """A data set with empty documents, which are unreadable samples. names: of all documents; places: (n,) of those that it has."""
    source, at = dataset.train, torch.from_numpy(places)
    storage = source.resident
    assert isinstance(storage, Ragged)
    lengths = storage.lengths.new_zeros(len(names))
    lengths[at] = storage.lengths
    labels = None if source.labels is None else torch.full((len(names),), -1).index_copy(0, at, source.labels)
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]) + storage.offsets[0]
    whole = ArraySource(Ragged(storage.flat, ends, storage.fill), labels, names)
    whole.bad = dict.fromkeys(np.setdiff1d(np.arange(len(names)), places).tolist(), EMPTY)
    identity = fingerprint(len(names), [dataset.fingerprint.encode(), places.tobytes()])
    return replace(dataset, train=whole, fingerprint=identity)
