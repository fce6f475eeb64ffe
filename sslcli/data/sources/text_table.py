"""Text with labels: CSV, TSV, JSON Lines or Parquet files whose rows are documents."""

from __future__ import annotations

import glob
import os

from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_regular
from sslcli.data.tables.build import as_names
from sslcli.data.tables.find import beside, find_files
from sslcli.data.tables.id_column import choose_id
from sslcli.data.text.build import Options, build_dataset
from sslcli.data.text.lines import MAX_BYTES
from sslcli.data.text.preprocessor import TABLES, TextPreprocessor
from sslcli.data.text.readers.collector import Collector
from sslcli.data.text.readers.rows import SELECT, Format, TableReader

ENDINGS = (*TABLES, ".json")
WHAT = "a table with a column of text (.csv, .tsv, .jsonl, .parquet), or a folder of them"


def text_table(
    path: str | None = None,
    name: str = "text",
    test: str | None = None,
    unlabelled: str | list[str] | None = None,
    text: str = "auto",
    label: str | None = "auto",
    delimiter: str | None = None,
    quoting: str = "auto",
    names: list[str | int] | None = None,
    tokenizer: str = "auto",
    vocabulary: int = 8192,
    lowercase: bool | None = None,
    max_length: int = 128,
    max_bytes: int = MAX_BYTES,
    html_breaks: str = "keep",
    windows: int | None = 1,
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "all",
    id: str | None = None,
    like: TextPreprocessor | None = None,
) -> Dataset:
    """A data set of the texts in a column of a table, as ids of tokens, of the modality "text".

    `path`: a file (CSV, TSV, JSON Lines, Parquet; also .gz, .xz, .bz2), or a folder with train and test files; `test`: a file with
    the test split. A column or key named split, with the values train, test, val or unlabelled, is another way to define it.
    `unlabelled`: a file, a pattern, or several of them, for pretraining alone: tables with the same column of text, or .txt files
    with a document on each line.
    `text`: the name of a column; auto, that of `like`, or the one named text, sentence, document, review, ..., with a warning where
    it is another one than that of `like`.
    `label`: the name of a column; auto, the last one named label, target, class or y; none.
    `id`: a column of identifiers, unique in each file, which names the documents and is never text; none.
    `delimiter`: of CSV, itself or in a word: comma, semicolon, tab, bar, space. `names`: of the columns of files without a header.
    `quoting`: csv, cells may be in double quotes; none, quotation marks are text; auto, none for files with tabs whose cells
    begin with a quotation mark without ending with one.
    All others are as in `text_lines`.

    Raises RequestError for options, DataError for the contents of files.
    """
    options = Options(
        tokenizer, vocabulary, lowercase, max_length, holdout, split_seed, pretrain_on, html_breaks, windows
    )  # fmt: skip
    form = Format(delimiter, quoting, as_names("names", names) if names is not None else None)
    notes: list[str] = []
    files = find_files(path, test, notes, ENDINGS, WHAT)
    trained, trained_id = (None, None) if like is None else (like.column, like.id)
    reader = TableReader(
        Collector(max_bytes), form, text, label, len(files) > 1, notes, None, trained, SELECT, choose_id(id), trained_id
    )
    for part, places in files.items():
        for place in places:
            reader.read(place, part)
    for place in [unlabelled] if isinstance(unlabelled, str) else unlabelled or []:
        for file in _matching(place, str(path)):
            reader.read_unlabelled(file)
    corpus = reader.collector.corpus(notes)
    corpus.column = None if reader.columns is None else reader.columns.text
    return build_dataset(name, corpus, options, notes, like)


def _matching(place: str, path: str) -> list[str]:
    """The files that a path or a pattern names, as given or beside the data. RequestError where there is none."""
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    text = os.path.expanduser(place)
    if any(c in text for c in "*?[") and not os.path.exists(text):
        found = next(filter(None, (sorted(glob.glob(p)) for p in (text, os.path.join(folder, text)))), None)
        if found:
            return [require_regular(file) for file in found]
    return [require_regular(beside(place, path, "dataset.unlabelled", WHAT))]
