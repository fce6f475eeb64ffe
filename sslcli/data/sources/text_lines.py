"""Text: files with a document on each line, or a folder of .txt files with a document in each."""

from __future__ import annotations

import glob
import os

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_path, require_regular
from sslcli.data.tables.find import beside, find_files, stem
from sslcli.data.text.build import Options, build_dataset
from sslcli.data.text.lines import MAX_BYTES
from sslcli.data.text.preprocessor import TABLES, TextPreprocessor
from sslcli.data.text.readers.collector import Collector
from sslcli.data.text.readers.folder import ENDINGS, UNITS, has_split_files, read_folder, split_files
from sslcli.errors import RequestError

WHAT = "a text file with a document on each line, or a folder of .txt files"


def text_lines(
    path: str | None = None,
    name: str = "text",
    document: str = "auto",
    test: str | None = None,
    label: str | None = "auto",
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
    like: TextPreprocessor | None = None,
) -> Dataset:
    """A data set of documents as ids of tokens, of the modality "text". All files are UTF-8, also compressed (.gz, .xz, .bz2).

    `path`: a file with a document on each line; a pattern such as `parts/*.txt` for several, or a folder with train.txt and
    test.txt; or a folder of .txt files, each of them a document. Folders in it are classes, or splits with classes.
    `document`: line or file; auto, a file where `path` is a folder without train.txt.
    `test`: a file with the test split, a document on each line. `label`: as for folders of images: auto, top, parent, none.
    `tokenizer`: bytes; words, wordpiece or bpe, fitted to the training text; a file tokenizer.json or vocab.txt, or a folder with
    one, such as a run; auto, wordpiece where the extra [text] is installed, else words.
    `vocabulary`: the number of tokens that are fitted. `lowercase`: null, true of words and wordpiece.
    `max_length`: tokens of a view, with [CLS], [SEP] and padding. `max_bytes`: of a document; longer ones are cut.
    `html_breaks`: keep, or space, which reads `<br />` as a space. `windows`: over which the features of a document are averaged;
    None, those of `like`, else 8.
    `holdout`: the held-out fraction; auto is a fifth where there are labels.
    `like`: a preprocessor to use instead of fitting a tokenizer; its `max_length` and `html_breaks` are then used, too.

    Raises RequestError for options, DataError for the contents of files.
    """
    options = Options(
        tokenizer, vocabulary, lowercase, max_length, holdout, split_seed, pretrain_on, html_breaks, windows
    )  # fmt: skip
    if document not in UNITS:
        raise RequestError(
            f"dataset.document: expected {', '.join(UNITS)}, got {escape(document)}", "dataset.document=line"
        )
    notes: list[str] = []
    collector = Collector(max_bytes)
    text = _expand(path)
    folder = isinstance(text, str) and os.path.isdir(text)
    if folder and document != "line" and (document == "file" or not has_split_files(str(text))):
        read_folder(str(text), label, collector, notes)
    else:
        files = find_files(text, None, notes, ENDINGS, WHAT) if isinstance(text, str) else split_files(text)
        for part, paths in files.items():
            for file in paths:
                _read_lines(file, part, collector, notes)
    if test is not None:
        first = text if isinstance(text, str) else os.path.dirname(text[0]) or "."
        _read_lines(require_regular(beside(test, first, what=WHAT)), "test", collector, notes)
    return build_dataset(name, collector.corpus(notes), options, notes, like)


def _read_lines(path: str, part: str, collector: Collector, notes: list[str]) -> None:
    if stem(path, TABLES) is not None:
        notes.append(
            f"warning: {escape(path)} is read line by line, with header and labels as text: dataset=text_table reads tables"
        )
    collector.read_lines(path, part)


def _expand(path: str | None) -> str | list[str]:
    """A file or a folder that exists, or the files that a pattern names. RequestError."""
    text = "" if path is None else os.path.expanduser(str(path))
    if os.path.exists(text) or not any(c in text for c in "*?["):
        return require_path(path, WHAT)
    files = [file for file in sorted(glob.glob(text)) if os.path.isfile(file)]
    if not files:
        raise RequestError(f"no file matches {escape(text)}: expected {WHAT}", f"ls -d {escape(text)}")
    return files
