"""Make a data set of pairs: a data set of images, and the captions of each as ids of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.folders.contents import FileList
from sslcli.data.image_text.captions import join_captions
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.data.images.duplicates import warn_duplicates
from sslcli.data.storage import Ragged
from sslcli.data.subset import Concat
from sslcli.data.text.choose import VOCABULARY, make_tokenizer
from sslcli.data.text.encoding import TokenCounts
from sslcli.data.text.preprocessor import MAX_LENGTH, TextPreprocessor, clean_texts
from sslcli.errors import DataError, RequestError, listing

CHUNK = 4096  # captions that are encoded together


@dataclass(frozen=True)
class CaptionOptions:
    """How captions are read: as the keys of the same names of `text_table`. RequestError for values out of range."""

    tokenizer: str = "auto"
    vocabulary: int = VOCABULARY
    lowercase: bool | None = None
    max_length: int = 64

    def __post_init__(self) -> None:
        if not 3 <= self.max_length <= MAX_LENGTH:
            raise RequestError(
                f"dataset.max_length: expected 3 to {MAX_LENGTH:,} tokens, got {self.max_length}",
                "dataset.max_length=64",
            )


def with_captions(
    images: Dataset,
    captions: Mapping[str, Sequence[str]],
    options: CaptionOptions,
    like: TextPreprocessor | None = None,
) -> Dataset:
    """The data set `images`, of the modality `image`, with the captions of each image by its name, of the modality `pairs`.

    like: the preprocessor of the captions, instead of a tokenizer that is fitted to those of the samples of pretraining."""
    notes, parts = images.notes, _parts(images)
    texts = {part: [list(captions[name]) for name in source.names or ()] for part, source in parts.items()}
    if like is None:
        fitted = [caption for part, rows in texts.items() if part != "test" for row in rows for caption in row]
        if len(set(fitted)) == 1:
            notes.append("warning: all captions are the same: nothing can be learned from them")
        like = fit_captions(fitted, options, notes)
    else:
        notes.append(f"tokenizer of captions: {like.tokenizer.describe()}, that of the run or encoder")
    for part, source in parts.items():
        attach_captions(source, texts[part], like)
    if isinstance(images.unlabelled, Concat):  # its parts had no captions when it was made
        first, second = images.unlabelled.parts
        assert first.captions is not None
        assert second.captions is not None
        images.unlabelled.captions = first.captions.concat(second.captions)
    return as_pairs(images, texts, like)


def as_pairs(images: Dataset, texts: Mapping[str, Sequence[Sequence[str]]], like: TextPreprocessor) -> Dataset:
    """A data set of images whose sources have captions, with their preprocessor; `texts`: the captions, for the fingerprint."""
    assert images.train.captions is not None, images.name
    content = "\0".join("\1".join(row) for rows in texts.values() for row in rows)
    identity = hashlib.sha256(f"{images.fingerprint}\0{content}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    count = images.fingerprint.partition("-")[0]
    notes = [*images.notes, TokenCounts.of(images.train.captions.texts, like).note(like.max_length, "caption")]
    range_ = images.details.get("range")
    return replace(
        images,
        modality="pairs",
        preprocessor=PairsPreprocessor(images.shape, images.values, range_, captions=like),
        fingerprint=f"{count}-{identity}",
        notes=notes,
        details={**images.details, "tokenizer": like.tokenizer.describe()},
    )


def fit_captions(texts: Sequence[str], options: CaptionOptions, notes: list[str]) -> TextPreprocessor:
    """The preprocessor of captions with the tokenizer that `options` names, fitted to `texts` where it is fitted."""
    if not texts:
        raise DataError("no sample of pretraining has a caption")
    tokenizer = make_tokenizer(options.tokenizer, lambda: iter([texts]), options.vocabulary, options.lowercase, notes)
    return TextPreprocessor(tokenizer, options.max_length)


def attach_captions(source: Source, texts: Sequence[Sequence[str]], preprocessor: TextPreprocessor) -> None:
    """Give the samples of a source their captions, in order."""
    flat = clean_texts([caption for row in texts for caption in row], preprocessor.html_breaks)
    encoded = [preprocessor.tokenizer.encode_flat(flat[i : i + CHUNK]) for i in range(0, len(flat), CHUNK)]
    ids, lengths = (np.concatenate(parts) for parts in zip(*encoded, strict=True))
    offsets = torch.tensor([0, *lengths.tolist()], dtype=torch.int64).cumsum(0)
    storage = Ragged(torch.from_numpy(ids.astype(np.int32)), offsets, fill=preprocessor.values.pad)
    source.captions = join_captions(storage, [len(row) for row in texts])


def _parts(images: Dataset) -> dict[str, Source]:
    """The sources that have names of their own."""
    unlabelled = images.unlabelled
    if isinstance(unlabelled, Concat):
        unlabelled = unlabelled.parts[1]
    parts = {"train": images.train, "test": images.test, "unlabelled": unlabelled}
    return {part: source for part, source in parts.items() if source is not None}


def require_different(parts: Mapping[str, FileList]) -> None:
    """DataError where an image that may be held out is among those of pretraining too: retrieval would find the very image that was
    trained on. `parts`: the images of each split that the manifest names."""
    for held in (parts[kind] for kind in ("test", "val") if kind in parts):
        for kind in ("train", "unlabelled"):
            if kind in parts and (names := warn_duplicates(parts[kind], held, str, [])):
                raise DataError(
                    f"{plural(len(names), 'image')} of the test split also in {kind} (same bytes): "
                    f"{listing(map(escape, names), 4)}",
                    "an image must be in one split: remove the rows of its copies from the manifest",
                )
