"""Tokenizers: text to ids of a vocabulary, and back.

A tokenizer encodes the content of a document, without [CLS], [SEP] and padding, which the views add. The names of special
tokens inside a text are text like any other: only `encode_masked` reads [MASK] as the token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.nn.values import Tokens
from sslcli.nn.words import pack_flags

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # the ids 0..4 of vocabularies made here
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
MASK_TEXT = SPECIAL[MASK]


class Tokenizer(ABC):
    """The base class.

    kind: in a word, for people. size: the number of ids. values: what a view of them is. unknown: the id of what has no other, None
    where all texts have one. lowercase: whether texts are lower-cased. word_start: (size,) bool, whether a token begins a word; the
    others continue the word of the token before them, except after a special token (see `Tokens.word_starts`)."""

    kind: str
    size: int
    values: Tokens
    unknown: int | None = UNK
    lowercase: bool = False
    word_start: Tensor

    @abstractmethod
    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another, (total,) int32, and the number of ids of each, (N,) int64."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, (L,) int32."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_masked(self, text: str) -> np.ndarray:
        """The ids (L,) int32 of one text, in which each `[MASK]` is the mask token."""
        assert self.values.mask is not None
        first, *others = self.encode(text.split(MASK_TEXT))
        mask = np.array([self.values.mask], np.int32)
        return np.concatenate([first, *(part for other in others for part in (mask, other))])

    @abstractmethod
    def decode(self, ids: Any) -> str:
        """The text of ids (L,), without padding, [CLS] and [SEP]; [UNK] and [MASK] by their names."""

    @abstractmethod
    def pieces(self, ids: Any) -> list[str]:
        """Each of the ids (L,) as it is written in the vocabulary, to show it."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs beside the files, with `kind`."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The vocabulary, by the name of a file."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        """The inverse of `to_json` and `files`, which may come from an untrusted source: ValueError, with a sentence."""

    @property
    def without_content(self) -> set[int]:
        """The ids that `decode` leaves out."""
        values = self.values
        return {i for i in (values.pad, values.start, values.separator) if i is not None}

    def describe(self) -> str:
        """For notes: `words, 8,192 tokens, lower case`."""
        return f"{self.kind}, {self.size:,} tokens{', lower case' if self.lowercase else ''}"


def own_values(size: int, word_start: Tensor) -> Tokens:
    """The values of a vocabulary made here, whose first ids are SPECIAL."""
    return Tokens(
        size,
        pad=PAD,
        mask=MASK,
        special=tuple(range(len(SPECIAL))),
        start=CLS,
        separator=SEP,
        continues=pack_flags(~word_start),
    )


def id_list(ids: Any) -> list[int]:
    """Ids (L,) of a tensor, an array or a list."""
    return [int(i) for i in (ids.tolist() if hasattr(ids, "tolist") else ids)]


class BytesTokenizer(Tokenizer):
    """The 256 bytes of UTF-8 after the special tokens. It knows all texts in all languages, and needs no vocabulary.

    A word begins at white space, or at a mark of punctuation in ASCII."""

    kind = "bytes"
    size = len(SPECIAL) + 256
    unknown = None

    def __init__(self) -> None:
        inside = [chr(b).isalnum() if b < 0x80 else True for b in range(256)]
        self.word_start = torch.tensor([True] * len(SPECIAL) + [not i for i in inside])
        self.values = own_values(self.size, self.word_start)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        parts = [text.encode("utf-8", "replace") for text in texts]
        ids = np.frombuffer(b"".join(parts), np.uint8).astype(np.int32) + len(SPECIAL)
        return ids, np.array([len(part) for part in parts], np.int64)

    def decode(self, ids: Any) -> str:
        out = bytearray()
        for i in id_list(ids):
            if i >= len(SPECIAL):
                out.append(i - len(SPECIAL))
            elif i not in self.without_content:
                out += SPECIAL[i].encode()
        return out.decode("utf-8", "replace")

    def pieces(self, ids: Any) -> list[str]:
        return [SPECIAL[i] if i < len(SPECIAL) else _show_byte(i - len(SPECIAL)) for i in id_list(ids)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def files(self) -> dict[str, bytes]:
        return {}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        return cls()

    def describe(self) -> str:
        return f"bytes of UTF-8, {self.size} tokens"


def _show_byte(value: int) -> str:
    """A printable character as itself, white space as a visible one, others as their number: `<e2>`."""
    known = {0x20: "␣", 0x0A: "⏎", 0x09: "⇥"}.get(value)
    return known or (chr(value) if 0x20 < value < 0x7F else f"<{value:02x}>")
