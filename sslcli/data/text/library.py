"""Tokenizers in the format of the library `tokenizers`, the extra `[text]`: WordPiece, BPE, and any tokenizer.json.

The content of tokenizer.json is kept as it is, with its ids; truncation and padding that it may define are not applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

import numpy as np
import torch

from sslcli.data.text.tokenizer import Tokenizer, id_list
from sslcli.errors import MachineError
from sslcli.nn.values import Tokens
from sslcli.nn.words import pack_flags

FILE = "tokenizer.json"
MAX_SIZE = 1 << 22  # ids
NAMES = {  # of the special tokens, in BERT's vocabulary and in others
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
SAMPLE = "A word, 1 \u2603 \U0001f600."
SPACE = "\u0120"  # a space in the vocabulary of a byte-level BPE
METASPACE = "\u2581"  # a space in the vocabulary of SentencePiece


def library() -> Any:
    """The package `tokenizers`. MachineError where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise MachineError(
            "this tokenizer requires the package tokenizers",
            "pip install 'sslcli[text]', or dataset.tokenizer=words, which needs no package",
        ) from None
    return tokenizers


@contextmanager
def invalid_as_value_error() -> Iterator[None]:
    """ValueError for what the library says about content that it cannot read; it also has exceptions that are no `Exception`."""
    try:
        yield
    except Exception as e:
        raise ValueError(_first_line(e)) from None
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        raise ValueError(_first_line(e)) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class LibraryTokenizer(Tokenizer):
    """A tokenizer.json. `content`: of the file. ValueError for content that the library refuses, and where a special token is
    missing that views need."""

    kind: str = "library"

    def __init__(self, content: bytes):
        self.content = content
        with invalid_as_value_error():
            description = json.loads(content)
            self._tokenizer = library().Tokenizer.from_str(content.decode())
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._tokenizer.encode_special_tokens = True  # their names in a text are text
            vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
            model, parts = description["model"], json.dumps(description.get("pre_tokenizer"))
            self.kind = str(model.get("type", "wordpiece" if "continuing_subword_prefix" in model else "bpe")).lower()
            self.lowercase = _lowercases(description.get("normalizer"))
            self._tokenizer.encode(SAMPLE, add_special_tokens=False)  # fails where the unknown token is missing
        self.size = 1 + max(vocabulary.values(), default=-1)
        if not 0 < self.size <= MAX_SIZE:
            raise ValueError(f"expected at most {MAX_SIZE:,} tokens, got {self.size:,}")
        ids = {role: next((vocabulary[n] for n in names if n in vocabulary), None) for role, names in NAMES.items()}
        if missing := [NAMES[role] for role in ("pad", "cls", "sep") if ids[role] is None]:
            raise ValueError(f"the vocabulary has no token {' or '.join(missing[0])}")
        special = {i for i in ids.values() if i is not None}
        special |= {t["id"] for t in description.get("added_tokens") or () if t.get("special")}
        self.unknown = ids["unk"]
        self._byte_level = "ByteLevel" in parts
        self._tokens = [""] * self.size
        for token, i in vocabulary.items():
            self._tokens[i] = token
        self.word_start = self._word_starts(special, str(model.get("continuing_subword_prefix") or ""), parts)
        self.values = Tokens(
            self.size,
            pad=int(ids["pad"] or 0),
            mask=ids["mask"],
            special=tuple(sorted(special)),
            start=ids["cls"],
            separator=ids["sep"],
            continues=pack_flags(~self.word_start),
        )

    def _word_starts(self, special: set[int], prefix: str, pre_tokenizer: str) -> torch.Tensor:
        """(size,) bool by the mark of a space, or by the prefix of tokens that continue a word."""
        mark = SPACE if self._byte_level else METASPACE if "Metaspace" in pre_tokenizer else None
        if mark is not None:
            starts = [not t or t[0] == mark or (t[0].isascii() and not t[0].isalnum()) for t in self._tokens]
        elif prefix:
            starts = [not t.startswith(prefix) for t in self._tokens]
        else:
            starts = [True] * self.size
        for i in special:
            starts[i] = True
        return torch.tensor(starts)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [e.ids for e in encoded]
        lengths = np.array([len(row) for row in ids], np.int64)
        return np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths

    def decode(self, ids: Any) -> str:
        kept = [i for i in id_list(ids) if i not in self.without_content]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def pieces(self, ids: Any) -> list[str]:
        return [_readable(self._tokens[i]) if self._byte_level else self._tokens[i] for i in id_list(ids)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "library"}

    def files(self) -> dict[str, bytes]:
        return {FILE: self.content}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        if FILE not in files:
            raise ValueError(f"{FILE} is missing")
        try:
            return cls(files[FILE])
        except ValueError as e:
            raise ValueError(f"{FILE}: {e}") from None


def _lowercases(normalizer: Any) -> bool:
    """Whether a normalizer of tokenizer.json makes text lower case."""
    if not isinstance(normalizer, dict):
        return False
    if normalizer.get("type") == "Sequence":
        return any(map(_lowercases, normalizer.get("normalizers") or ()))
    return normalizer.get("type") == "Lowercase" or bool(normalizer.get("lowercase"))


def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: those that can be printed for themselves, the others for
    those from U+0100 on (Radford et al., 2019, `bytes_to_unicode` of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_of()


def _readable(token: str) -> str:
    """A token of a byte-level vocabulary as text, with a visible space; parts of a character by their bytes."""
    if not all(c in BYTE_OF for c in token):
        return token
    raw = bytes(BYTE_OF[c] for c in token)
    text = raw.decode("utf-8", "backslashreplace").replace("\\x", "\\")
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
