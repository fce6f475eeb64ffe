"""Views of documents: (L,) int64 ids of a vocabulary, [CLS] content [SEP] and padding.

Raw samples are the content of whole documents, int32 ids of different lengths. A view is the start of a document, or with an op
such as `span` another part of it; the ops (texts/ops.py) transform the content before [CLS] and [SEP] are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor, Source
from sslcli.data.storage import Ragged, RaggedBatch
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.user_files.samples import UserFiles
from sslcli.data.user_files.text import read_text_files
from sslcli.errors import RequestError
from sslcli.nn.values import Tokens, Values
from sslcli.rng import Draw
from sslcli.views.copies import NearCopies
from sslcli.views.corruption import Corruption
from sslcli.views.modality import Baseline, Modality, RawFeatures, Terms
from sslcli.views.op import BadValue, Op, OpRandoms
from sslcli.views.preview.base import Preview
from sslcli.views.preview.words import Words
from sslcli.views.texts.baselines import LSA, TfIdf
from sslcli.views.texts.copies import DocumentCopies, defects
from sslcli.views.texts.corruptions import corruptions
from sslcli.views.texts.documents import Documents
from sslcli.views.texts.ops import OPS, Span, TextOp
from sslcli.views.texts.terms import NOTE, class_terms


class TextView:
    """One view: the content of documents -> (B, L)."""

    def __init__(self, ops: list[Op], dataset: Dataset):
        self.values = tokens_of(dataset.values)
        self.shape = tuple(dataset.shape)
        for op in ops:
            assert isinstance(op, TextOp), op
            try:
                op.attach(self.values)
            except BadValue as bad:
                raise RequestError(f"{op.name}.{bad.parameter}: expected {bad.expected}") from None
            self.shape = op.out_shape(self.shape)
        self.span = ops[0] if ops and isinstance(ops[0], Span) else None
        self.ops = ops[1:] if self.span is not None else ops
        self.randoms = ops

    def resident(self, raw: RaggedBatch | Tensor, draw: Draw) -> Tensor:
        """Raw documents -> (B, *shape). A tensor (B, n) has `values.pad` after the end of each document."""
        if isinstance(raw, Tensor):
            raw = batch_of(raw, self.values.pad)
        randoms = OpRandoms(self.randoms, draw, raw.device)
        room = self.shape[0] - 2  # [CLS] and [SEP]
        lengths = raw.lengths
        if self.span is None:
            x = raw.gather(torch.zeros_like(lengths), room, self.values.pad).long()
        else:
            params, _ = randoms.params(self.span)
            start, size = self.span.window(lengths, room - self.span.reserved, params)
            x = raw.gather(start, room, self.values.pad).long()
            outside = torch.arange(room, device=x.device) >= size[:, None]
            x = self.span.arrange(x.masked_fill(outside, self.values.pad), size, params)
        x = randoms.run(self.ops, x, slice(0, len(x)))
        return add_special(x, self.values)

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Documents that are read one at a time, as (B, longest)."""
        documents = [torch.as_tensor(sample, dtype=torch.int32) for sample in samples]
        return torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=self.values.pad)

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """Apply all ops."""
        return self.resident(frame, draw)


class DocumentWindows(TextView):
    """Consecutive windows of documents, each [CLS] content [SEP]: (B, W, L), padding alone where a document has fewer. The first
    one is the clean view."""

    def __init__(self, dataset: Dataset, windows: int):
        super().__init__([], dataset)
        self.windows = windows

    def resident(self, raw: RaggedBatch | Tensor, draw: Draw) -> Tensor:
        if isinstance(raw, Tensor):
            raw = batch_of(raw, self.values.pad)
        room, lengths = self.shape[0] - 2, raw.lengths
        found = []
        for i in range(self.windows):
            begin = torch.full_like(lengths, i * room)
            window = add_special(raw.gather(begin, room, self.values.pad).long(), self.values)
            found.append(window if i == 0 else window.masked_fill((lengths <= begin)[:, None], self.values.pad))
        return torch.stack(found, dim=1)


def batch_of(raw: Tensor, pad: int) -> RaggedBatch:
    """Padded documents (B, n) as a batch of their contents."""
    present = raw != pad
    lengths = (present * torch.arange(1, raw.shape[1] + 1, device=raw.device)).amax(dim=1) if raw.shape[1] else 0
    lengths = torch.as_tensor(lengths, device=raw.device).expand(len(raw)).long()
    inside = torch.arange(raw.shape[1], device=raw.device) < lengths[:, None]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return RaggedBatch(Ragged(raw[inside], offsets, pad), torch.arange(len(raw), device=raw.device))


def add_special(content: Tensor, values: Tokens) -> Tensor:
    """Content (B, n), followed by padding -> (B, n + 2): the class token, the content, the separator, padding."""
    assert values.start is not None, values
    assert values.separator is not None, values
    count = (content != values.pad).sum(dim=1, keepdim=True)
    out = content.new_full((len(content), content.shape[1] + 2), values.pad)
    out[:, 0] = values.start
    out[:, 1:-1] = content
    return out.scatter_(1, count + 1, values.separator)


def assemble(contents: Sequence[Tensor], length: int, values: Tokens) -> Tensor:
    """Views (B, length) of the starts of documents, from their content, (n,) ids each."""
    out = torch.full((len(contents), length - 2), values.pad, dtype=torch.int64)
    for row, ids in zip(out, contents, strict=True):
        row[: len(ids)] = ids[: length - 2]
    return add_special(out, values)


class TextModality(Modality):
    """Documents."""

    noun = ("document", "documents")
    ops = OPS
    strings = True
    unit = "tokens"
    deleted = "becomes padding"
    inserted = "into padding"

    def view(self, ops: list[Op], dataset: Dataset) -> TextView:
        return TextView(ops, dataset)

    def windows(self, dataset: Dataset) -> TextView | None:
        own = dataset.preprocessor
        count = own.windows if isinstance(own, TextPreprocessor) else 1
        return DocumentWindows(dataset, count) if count > 1 else None

    def describe(self, shape: tuple[int, ...]) -> str:
        return f"text of at most {shape[0]:,} tokens"

    def dummy(self, shape: tuple[int, ...], values: Values, n: int) -> Tensor:
        values = tokens_of(values)
        special = {values.pad, values.mask, *values.special}
        first = next(i for i in range(values.size) if i not in special)
        return add_special(torch.full((n, shape[0] - 2), first, dtype=torch.int64), values)

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, TextPreprocessor), preprocessor
        return read_text_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        x, values = x.detach().cpu(), tokens_of(dataset.values)
        begins = values.word_starts(x)
        hidden = torch.tensor([values.pad, *(i for i in (values.start, values.separator) if i is not None)])
        return [_words(row, starts, ~torch.isin(row, hidden), dataset) for row, starts in zip(x, begins, strict=True)]

    def raw_features(self, dataset: Dataset) -> RawFeatures:
        return LSA(preprocessor_of(dataset))

    def baselines(self, dataset: Dataset) -> dict[str, Baseline]:
        if dataset.task != "classes":
            return {}
        return {"tfidf": TfIdf(self.whole(dataset.train, torch.arange(len(dataset.train)), dataset))}

    def whole(self, source: Source, ids: Tensor, dataset: Dataset) -> Documents:
        """The documents `ids` as strings, of any length."""
        return Documents(source, ids, preprocessor_of(dataset))

    def terms(self, source: Source, groups: Tensor, dataset: Dataset, count: int) -> Terms:
        """Those of the whole documents."""
        ids = torch.nonzero(groups >= 0)[:, 0]
        return Terms(NOTE, class_terms(self.whole(source, ids, dataset), groups[ids], count))

    def spell(self, ids: Sequence[int], dataset: Dataset) -> list[str]:
        return preprocessor_of(dataset).tokenizer.pieces(ids)

    def parse(self, text: str, dataset: Dataset) -> Tensor:
        ids = preprocessor_of(dataset).tokenizer.encode_masked(text)
        return assemble([torch.from_numpy(ids).long()], dataset.shape[0], tokens_of(dataset.values))[0]

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies:
        values = tokens_of(dataset.values)
        return DocumentCopies([i for i in (values.pad, values.start, values.separator) if i is not None], features)

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        content = self.removable(x, dataset.values)
        return defects(x, content, preprocessor_of(dataset).tokenizer.unknown)

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        values = tokens_of(dataset.values)
        return corruptions(preprocessor_of(dataset), lambda contents, length: assemble(contents, length, values))

    def delete(self, x: Tensor, where: Tensor, values: Values) -> Tensor:
        """Padding, which every backbone ignores; [MASK] is known only to those that were trained with it."""
        return values.remove(x, where & self.removable(x, values))

    def removable(self, x: Tensor, values: Values) -> Tensor:
        """All tokens but [CLS], [SEP] and padding."""
        values = tokens_of(values)
        frame = [i for i in (values.pad, values.start, values.separator) if i is not None]
        return ~torch.isin(x, torch.tensor(frame, device=x.device))

    def spans(self, x: Tensor, values: Values, limit: int) -> Tensor:
        """Words; in a document of more than `limit` words, neighbors share a group."""
        content = self.removable(x, values)
        word = (tokens_of(values).word_starts(x) & content).cumsum(dim=1) - 1
        count = word.amax(dim=1, keepdim=True) + 1
        word = torch.where(count > limit, word * limit // count.clamp(min=1), word)
        return word.masked_fill(~content, -1)

    def mean(self, batches: Iterator[Tensor], dataset: Dataset) -> Tensor:
        """The most frequent token that is content, at each place."""
        values = tokens_of(dataset.values)
        counts = torch.zeros(values.size, dtype=torch.int64)
        for x in batches:
            counts += x.flatten().bincount(minlength=values.size).cpu()
        counts[list({values.pad, *values.special})] = -1
        return torch.full((1, *dataset.shape), int(counts.argmax()), dtype=torch.int64)

    def interpolate(self, x: Tensor, known: Tensor) -> Tensor:
        """Each token that is not known is a copy of the last known one before it."""
        place = torch.where(known, torch.arange(x.shape[1], device=x.device), 0).cummax(dim=1).values
        return x.gather(1, place)

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        """`error_rate`: the share of tokens that differ."""
        return {"error_rate": values.likelihood().error(guess, target)}


def _words(ids: Tensor, begins: Tensor, shown: Tensor, dataset: Dataset) -> Words:
    """The preview of one view (L,): the tokens where `shown`; their ids where the vocabulary is not known."""
    at = shown.nonzero()[:, 0]
    kept, starts = ids[at].tolist(), tuple(begins[at].tolist())
    if not isinstance(dataset.preprocessor, TextPreprocessor):
        pieces = tuple(map(str, kept))
        return Words(" ".join(pieces), pieces, starts, tuple(at.tolist()))
    tokenizer = dataset.preprocessor.tokenizer
    pieces = tuple(
        piece if start else piece.removeprefix("##")
        for piece, start in zip(tokenizer.pieces(kept), starts, strict=True)
    )
    return Words(tokenizer.decode(kept), pieces, starts, tuple(at.tolist()))


def preprocessor_of(dataset: Dataset) -> TextPreprocessor:
    assert isinstance(dataset.preprocessor, TextPreprocessor), dataset.preprocessor
    return dataset.preprocessor


def tokens_of(values: Values) -> Tokens:
    assert isinstance(values, Tokens), values
    return values
