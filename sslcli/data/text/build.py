"""Make a data set of documents: split, tokenizer, encoded samples, and notes on what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sslcli.console import escape, plural
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.files.string_table import StringTable
from sslcli.data.fingerprint import fingerprint
from sslcli.data.split import NOTHING_HELD_OUT, split, split_hash
from sslcli.data.storage import Ragged
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.data.tables.ids import describe_ids
from sslcli.data.text.choose import VOCABULARY, make_tokenizer
from sslcli.data.text.corpus import PARTS, TEST, TRAIN, UNLABELLED, VAL, Corpus
from sslcli.data.text.documents import Documents
from sslcli.data.text.encoding import TokenCounts, encode_documents
from sslcli.data.text.preprocessor import HTML_BREAKS, MAX_LENGTH, MAX_WINDOWS, WINDOWS, TextPreprocessor, clean_texts
from sslcli.errors import DataError, RequestError, listing

MAX_NAMES = 1_000_000  # larger splits have no names, which would take more memory than their ids


@dataclass
class Options:
    """What the user chose, see `sslcli.data.sources.text_lines.text_lines`. RequestError for values that are none."""

    tokenizer: str = "auto"
    vocabulary: int = VOCABULARY
    lowercase: bool | None = None
    max_length: int = 128
    holdout: float | str = "auto"
    split_seed: int = 0
    pretrain_on: str = "all"
    html_breaks: str = "keep"
    windows: int | None = 1

    def __post_init__(self) -> None:
        check_pretrain_on(self.pretrain_on)
        if self.html_breaks not in HTML_BREAKS:
            raise RequestError(
                f"dataset.html_breaks: expected {' or '.join(HTML_BREAKS)}, got {escape(str(self.html_breaks))}",
                "dataset.html_breaks=space",
            )
        if not 3 <= self.max_length <= MAX_LENGTH:
            raise RequestError(
                f"dataset.max_length: expected 3 to {MAX_LENGTH:,} tokens, got {self.max_length}",
                "dataset.max_length=128",
            )
        if self.windows is not None and not 1 <= self.windows <= MAX_WINDOWS:
            raise RequestError(
                f"dataset.windows: expected 1 to {MAX_WINDOWS:,}, got {self.windows}", "dataset.windows=8"
            )


def build_dataset(
    name: str, corpus: Corpus, options: Options, notes: list[str], like: TextPreprocessor | None = None
) -> Dataset:
    """A data set of documents. `like`: the preprocessor to use instead of a tokenizer that is fitted. RequestError, DataError."""
    documents, labels = corpus.documents, corpus.labels
    identity = _fingerprint(corpus)
    parts, digest = _split(corpus, options, notes)
    if not (parts == TRAIN).any():
        raise DataError(f"{name} has no training document")
    _warn_equal(documents, parts, notes)
    if like is None:
        like = replace(_fit(documents, parts, options, notes), column=corpus.column, id=corpus.id)
    else:
        column, id = corpus.column or like.column, corpus.id or like.id
        like = replace(like, windows=options.windows or like.windows, column=column, id=id)
        notes.append(f"tokenizer: {like.tokenizer.describe()}, that of the run or encoder")
    encoded, breaks = encode_documents(documents, like)
    if breaks:
        kept = plural(breaks, "line break")
        notes.append(f"{kept} of HTML (<br />) kept as text (dataset.html_breaks=space reads each as a space)")
    if empty := int((encoded.lengths == 0).sum()):
        notes.append(f"warning: {plural(empty, 'document')} without any token of the vocabulary")
    sources = _sources(encoded, corpus, parts)
    notes.append(TokenCounts.of(sources["train"].resident, like).note(like.max_length, windows=like.windows))
    if corpus.id is not None and corpus.names is not None:
        describe_ids(corpus.id, corpus.names, notes)
    if labels is not None and corpus.classes:
        notes.append(f"{plural(len(corpus.classes), 'class', 'classes')}: {listing(map(escape, corpus.classes), 6)}")
        notes += class_warnings(corpus.classes, int((labels >= 0).sum()))
    sources["unlabelled"] = pretrain_source(sources["train"], sources["unlabelled"], options.pretrain_on, notes)
    return Dataset(
        name=name,
        modality="text",
        shape=like.shape,
        **sources,
        classes=corpus.classes,
        values=like.values,
        preprocessor=like,
        fingerprint=identity,
        split=digest,
        id=corpus.id,
        notes=notes,
        details={"layout": "text", "tokenizer": like.tokenizer.describe()},
    )


def _fit(documents: Documents, parts: np.ndarray, options: Options, notes: list[str]) -> TextPreprocessor:
    """The preprocessor of the training documents, with the unlabeled ones."""
    fitted = (parts == TRAIN) | (parts == UNLABELLED)

    def texts() -> Iterator[Sequence[str]]:
        return (clean_texts(chunk, options.html_breaks) for _, chunk in documents.chunks(fitted))

    tokenizer = make_tokenizer(options.tokenizer, texts, options.vocabulary, options.lowercase, notes)
    return TextPreprocessor(tokenizer, options.max_length, options.html_breaks, options.windows or WINDOWS)


def _fingerprint(corpus: Corpus) -> str:
    """Of the documents, their splits and their labels."""
    documents = corpus.documents
    arrays = [documents.content, documents.offsets, corpus.parts.astype(np.int8)]
    if corpus.labels is not None:
        arrays.append(corpus.labels)
    contents = [array.view(np.uint8).data for array in arrays]
    return fingerprint(len(documents), [*contents, *(c.encode() for c in corpus.classes)])


def _split(corpus: Corpus, options: Options, notes: list[str]) -> tuple[np.ndarray, str]:
    """The part of each document, with the labelled one of test and val as the test split, or with documents held out; and a hash of
    those held out."""
    parts, labels = _choose_test(corpus, notes), corpus.labels
    if (parts == TEST).any():
        return parts, ""
    ids = np.flatnonzero(parts == TRAIN)
    codes = None if labels is None or not (labels[ids] >= 0).any() else torch.from_numpy(labels[ids])
    _, held_out = split(len(ids), options.holdout, options.split_seed, codes)
    how = "at random" if codes is None else "stratified by class"
    held = plural(len(held_out), "document")
    notes.append(f"held out: {held} of {len(ids):,}, {how}" if len(held_out) else NOTHING_HELD_OUT)
    parts = parts.copy()
    if len(held_out):
        parts[ids[held_out.numpy()]] = TEST
    return parts, split_hash(held_out)


def _choose_test(corpus: Corpus, notes: list[str]) -> np.ndarray:
    """Of val and test, the one with labels is the test split; test where both have some. The other one is not used."""
    test, val = corpus.parts == TEST, corpus.parts == VAL
    if not val.any():
        return corpus.parts
    known = corpus.labels >= 0 if corpus.labels is not None else np.ones(len(corpus.parts), bool)
    parts = corpus.parts.copy()
    if not test.any() or (known[val].any() and not known[test].any()):
        if test.any():
            notes.append(f"warning: test: {plural(int(test.sum()), 'document')} not used, because they have no label")
        parts[test], parts[val] = -1, TEST
    else:
        notes.append(f"val: {plural(int(val.sum()), 'document')} not used, because there is a test split")
        parts[val] = -1
    return parts


def _sources(encoded: Ragged, corpus: Corpus, parts: np.ndarray) -> dict[str, Any]:
    """The fields `train`, `test` and `unlabelled` of a Dataset."""
    sources: dict[str, Any] = {"train": None, "test": None, "unlabelled": None}
    for part in sources:
        ids = np.flatnonzero(parts == PARTS.index(part))
        if not len(ids):
            continue
        x = encoded if len(ids) == len(encoded) else _select(encoded, ids)
        labels = None if corpus.labels is None or part == "unlabelled" else torch.from_numpy(corpus.labels[ids])
        named = corpus.names is not None and (corpus.id is not None or len(ids) <= MAX_NAMES)
        names = StringTable(corpus.names[i] for i in ids.tolist()) if named and corpus.names is not None else None
        sources[part] = ArraySource(x, labels if labels is not None and bool((labels >= 0).any()) else None, names)
    return sources


def _select(encoded: Ragged, ids: np.ndarray) -> Ragged:
    """The documents `ids`, sorted; not copied where they follow one another."""
    first, last = int(ids[0]), int(ids[-1])
    if last - first + 1 != len(ids):
        lengths = encoded.lengths[torch.from_numpy(ids)]
        chosen = torch.zeros(len(encoded), dtype=torch.bool)
        chosen[torch.from_numpy(ids)] = True
        flat = encoded.flat[chosen.repeat_interleave(encoded.lengths)]  # a byte for each token, no index
        return Ragged(flat, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), encoded.fill)
    offsets = encoded.offsets[first : last + 2]
    return Ragged(encoded.flat[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0], encoded.fill)


def _warn_equal(documents: Documents, parts: np.ndarray, notes: list[str]) -> None:
    """Warn about documents of the test split that are in train too, and where all documents are equal."""
    first = [documents[i] for i in range(min(len(documents), 1000))]
    if len(first) > 1 and len(set(first)) == 1:
        notes.append(f"warning: {'all' if len(first) == len(documents) else 'the first 1,000'} documents are equal")
    if not (parts == TEST).any():
        return
    hashes = documents.hashes()
    train, test = hashes[parts == TRAIN], hashes[parts == TEST]
    if n := int(np.isin(test, train).sum()):
        notes.append(
            f"warning: {plural(n, 'test document')} of {len(test):,} also in train: metrics will be too optimistic"
        )
