"""The tokenizer `words`: lower-cased words and marks of punctuation, the most frequent ones of the training text."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import torch

from sslcli.config import typecheck
from sslcli.data.text.tokenizer import SPECIAL, UNK, Tokenizer, id_list, own_values

FILE = "vocabulary.txt"
MAX_COUNTED = 4_000_000  # different words that are counted at a time
NO_SPACE_BEFORE = frozenset(".,;:!?)]}%…'’\"”-/")
NO_SPACE_AFTER = frozenset("([{'’$#“-/")
# Ideographs and kana are written without spaces; each is a word of its own, as in BERT's tokenizer (which keeps kana together).
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


def classes() -> tuple[str, str, str]:
    """Patterns of one character: that begins a word, that continues one, and that is a mark of its own.

    A word has letters, digits and underscores, and the marks that combine with them (vowel signs, accents)."""
    codes = [c for c in range(0x300, 0x1F000) if unicodedata.category(chr(c))[0] == "M"]
    runs: list[list[int]] = []
    for c in codes:
        if runs and c == runs[-1][1] + 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    marks = "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in runs)
    return rf"(?:(?![{IDEOGRAPHS}])\w)", rf"(?:(?![{IDEOGRAPHS}])[\w{marks}])", r"[^\w\s]"


@functools.cache
def pattern() -> re.Pattern[str]:
    """Words; and single other characters that are not white space."""
    begin, inside, other = classes()
    return re.compile(rf"[{IDEOGRAPHS}]|{begin}{inside}*|{other}")


ASCII = re.compile(r"[a-z0-9_]+|[^\sa-z0-9_]")


def split_words(text: str, lowercase: bool = True) -> list[str]:
    """The words and marks of a text, in the composed form of Unicode (NFC)."""
    if text.isascii():
        return ASCII.findall(text.lower()) if lowercase else pattern().findall(text)
    text = unicodedata.normalize("NFC", text)
    return pattern().findall(text.lower() if lowercase else text)


class WordsTokenizer(Tokenizer):
    """A vocabulary of whole words; all others are [UNK]. `words`: without the special tokens, the most frequent first."""

    kind = "words"

    def __init__(self, words: Sequence[str], lowercase: bool = True):
        self.words, self.lowercase = tuple(words), lowercase
        self.size = len(SPECIAL) + len(self.words)
        self.word_start = torch.ones(self.size, dtype=torch.bool)
        self.values = own_values(self.size, self.word_start)
        self._ids = {word: i for i, word in enumerate(self.words, len(SPECIAL))}

    @classmethod
    def fit(cls, texts: Iterable[Sequence[str]], size: int, lowercase: bool = True) -> Self:
        """The vocabulary of `size` tokens, with the special ones, of the training texts, which come in chunks.

        Words are ordered by count, equally frequent ones by their characters. Of more than 4 million different words, those seen
        once so far are dropped while counting."""
        counts = count_words(texts, lowercase)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([word for word, _ in ordered[: max(0, size - len(SPECIAL))]], lowercase)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        get, lower = self._ids.get, self.lowercase
        ids = [[get(word, UNK) for word in split_words(text, lower)] for text in texts]
        lengths = np.array([len(row) for row in ids], np.int64)
        return np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths

    def decode(self, ids: Any) -> str:
        """Words with a space between them, except at punctuation."""
        out = ""
        for i in id_list(ids):
            if i in self.without_content:
                continue
            piece = self._piece(i)
            glued = not out or piece in NO_SPACE_BEFORE or out[-1] in NO_SPACE_AFTER
            out += piece if glued else f" {piece}"
        return out

    def pieces(self, ids: Any) -> list[str]:
        return [self._piece(i) for i in id_list(ids)]

    def _piece(self, i: int) -> str:
        return SPECIAL[i] if i < len(SPECIAL) else self.words[i - len(SPECIAL)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "lowercase": self.lowercase}

    def files(self) -> dict[str, bytes]:
        return {FILE: "\n".join((*SPECIAL, *self.words)).encode()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        if not typecheck.matches_type(content.get("lowercase"), bool):
            raise ValueError("lowercase: expected true or false")
        try:
            lines = files[FILE].decode().split("\n")
        except KeyError:
            raise ValueError(f"{FILE} is missing") from None
        except UnicodeDecodeError as e:
            raise ValueError(f"{FILE} is not UTF-8: {e.reason}") from None
        if tuple(lines[: len(SPECIAL)]) != SPECIAL:
            raise ValueError(f"{FILE} must begin with {', '.join(SPECIAL)}")
        if len(set(lines)) != len(lines):
            raise ValueError(f"{FILE} names a word twice")
        return cls(lines[len(SPECIAL) :], bool(content["lowercase"]))


def count_words(texts: Iterable[Sequence[str]], lowercase: bool) -> Counter[str]:
    """How often each word occurs in texts, which come in chunks."""
    counts: Counter[str] = Counter()
    for chunk in texts:
        for text in chunk:
            counts.update(split_words(text, lowercase))
        if len(counts) > MAX_COUNTED:
            counts = Counter({sys.intern(word): n for word, n in counts.items() if n > 1})
    return counts
