"""Encode documents: texts in UTF-8 to ids, one document after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sslcli.console import plural
from sslcli.data import notify
from sslcli.data.storage import Ragged
from sslcli.data.text.documents import Documents, Growing
from sslcli.data.text.preprocessor import HTML_BREAK, TextPreprocessor, clean_texts


def encode_documents(documents: Documents, preprocessor: TextPreprocessor) -> tuple[Ragged, int]:
    """The ids of all documents, int32, encoded a few megabytes at a time; and the number of line breaks of HTML that were kept."""
    ids, lengths, breaks = Growing(np.int32), Growing(np.int64), 0
    for first, texts in documents.chunks():
        cleaned = clean_texts(texts, preprocessor.html_breaks)
        flat, counts = preprocessor.tokenizer.encode_flat(cleaned)
        ids.append(flat)
        lengths.append(counts)
        breaks += sum(len(HTML_BREAK.findall(text)) for text in cleaned if "<" in text)
        notify.show_progress("tokenizing", first + len(texts), len(documents))
    offsets = torch.zeros(len(documents) + 1, dtype=torch.int64)
    torch.cumsum(torch.from_numpy(lengths.take()), 0, out=offsets[1:])
    return Ragged(torch.from_numpy(ids.take()), offsets, fill=preprocessor.values.pad), breaks


@dataclass(frozen=True)
class TokenCounts:
    """Statistics of encoded documents. median: tokens of one. cut: share longer than a view. unknown: share of [UNK]."""

    tokens: int
    median: int
    cut: float
    unknown: float | None

    @classmethod
    def of(cls, encoded: Ragged, preprocessor: TextPreprocessor) -> TokenCounts:
        lengths = encoded.lengths
        begin, end = int(encoded.offsets[0]), int(encoded.offsets[-1])
        total = end - begin
        unk = preprocessor.tokenizer.unknown
        unknown = None
        if unk is not None:
            unknown = int((encoded.flat[begin:end] == unk).sum()) / max(total, 1)
        room = preprocessor.max_length - 2
        return cls(total, int(lengths.median()), int((lengths > room).sum()) / max(len(lengths), 1), unknown)

    def note(self, max_length: int, noun: str = "document", windows: int = 1) -> str:
        text = (
            f"{plural(self.tokens, 'token')} in train, median {self.median:,} a {noun}; {self.cut:.1%} of the {noun}s"
        )
        text += f" are longer than a view of {max_length} tokens (dataset.max_length)"
        if self.cut and windows > 1:
            text += f", and evaluations average the features of up to {windows} windows of them (dataset.windows)"
        return text if self.unknown is None else f"{text}; {self.unknown:.2%} of the tokens are [UNK]"
